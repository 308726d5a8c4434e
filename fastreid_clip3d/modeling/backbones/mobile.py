"""fast-reid's mobile networks with a choice of their last stride, which fast-reid's own builders do not read.

With ``MODEL.BACKBONE.LAST_STRIDE`` 1 a 128 x 64 image gives 8 x 4 patches, with 2 (as fast-reid builds them) 4 x 2. The
weights are the same for both.
"""

from __future__ import annotations

from fastreid.config import CfgNode
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.backbones.mobilenet import build_mobilenetv2_backbone
from fastreid.modeling.backbones.mobilenetv3 import build_mobilenetv3_backbone
from fastreid.modeling.backbones.shufflenet import build_shufflenetv2_backbone
from torch import nn

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones.last_stride import remove_last_stride


@BACKBONE_REGISTRY.register()
def build_mobilenetv2_last_stride_backbone(cfg: CfgNode) -> nn.Module:
    """MobileNetV2 of ``build_mobilenetv2_backbone`` with ``MODEL.BACKBONE.LAST_STRIDE`` 1 or 2."""
    return _with_last_stride(build_mobilenetv2_backbone(cfg), cfg)


@BACKBONE_REGISTRY.register()
def build_mobilenetv3_last_stride_backbone(cfg: CfgNode) -> nn.Module:
    """MobileNetV3 of ``build_mobilenetv3_backbone`` with ``MODEL.BACKBONE.LAST_STRIDE`` 1 or 2."""
    return _with_last_stride(build_mobilenetv3_backbone(cfg), cfg)


@BACKBONE_REGISTRY.register()
def build_shufflenetv2_last_stride_backbone(cfg: CfgNode) -> nn.Module:
    """ShuffleNetV2 of ``build_shufflenetv2_backbone`` with ``MODEL.BACKBONE.LAST_STRIDE`` 1 or 2."""
    return _with_last_stride(build_shufflenetv2_backbone(cfg), cfg)


def _with_last_stride(model: nn.Module, cfg: CfgNode) -> nn.Module:
    last_stride = cfg.MODEL.BACKBONE.LAST_STRIDE
    if last_stride not in (1, 2):
        raise ClearError(f"MODEL.BACKBONE.LAST_STRIDE must be 1 or 2, got {last_stride!r}.")
    if last_stride == 1 and not remove_last_stride(model, (64, 64)):
        raise ClearError(f"{cfg.MODEL.BACKBONE.NAME} {cfg.MODEL.BACKBONE.DEPTH} has no last stride to set to 1.")
    return model
