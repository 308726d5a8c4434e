"""Losses as functions of tensors: torch only, no configuration, no fast-reid, no process groups."""

from fastreid_clip3d.modeling.losses.body_shape import BodyShapeLoss
from fastreid_clip3d.modeling.losses.clothes_adversarial import ClothesAdversarialLoss
from fastreid_clip3d.modeling.losses.global_distill import GlobalDistillLoss
from fastreid_clip3d.modeling.losses.mlp import MLP
from fastreid_clip3d.modeling.losses.optimal_transport import OTLoss
from fastreid_clip3d.modeling.losses.probe_distill import ProbeDistillLoss
from fastreid_clip3d.modeling.losses.sinkhorn import sinkhorn

__all__ = [
    "MLP",
    "BodyShapeLoss",
    "ClothesAdversarialLoss",
    "GlobalDistillLoss",
    "OTLoss",
    "ProbeDistillLoss",
    "sinkhorn",
]
