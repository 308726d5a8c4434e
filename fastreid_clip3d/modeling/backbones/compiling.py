"""torch.compile for any student: what is compiled depends on how the student's local features are read."""

from __future__ import annotations

import torch
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from torch import nn

from fastreid_clip3d.modeling.backbones.timm_backbone import TimmBackbone


def compile_student(backbone: nn.Module) -> None:
    """Compiles the part of a student that every step runs, in place; parameters and their names stay.

    ``nn.Module.compile`` reaches calls of the module itself. The patches of timm's networks and of fast-reid's ViT are
    read from parts of the network (``maps``, ``vit_maps``), so those parts are compiled there.
    """
    if isinstance(backbone, TimmBackbone):
        backbone.model.forward_features = torch.compile(backbone.model.forward_features)
    elif isinstance(backbone, VisionTransformer):
        for block in backbone.blocks:
            block.compile()
    else:
        backbone.compile()
