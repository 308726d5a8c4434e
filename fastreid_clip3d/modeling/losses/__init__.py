"""Losses as functions of tensors: torch only, no configuration, no fast-reid, no process groups."""

from .body_shape import BodyShapeLoss
from .clothes_adversarial import ClothesAdversarialLoss
from .global_distill import GlobalDistillLoss
from .mlp import MLP
from .optimal_transport import OTLoss
from .sinkhorn import sinkhorn

__all__ = ["BodyShapeLoss", "ClothesAdversarialLoss", "GlobalDistillLoss", "MLP", "OTLoss", "sinkhorn"]
