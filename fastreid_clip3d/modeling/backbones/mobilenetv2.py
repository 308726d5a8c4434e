"""fast-reid's MobileNetV2 with a choice of its last stride, which fast-reid's own builder does not read."""

from __future__ import annotations

from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.backbones.mobilenet import InvertedResidual, MobileNetV2, build_mobilenetv2_backbone
from torch import nn


@BACKBONE_REGISTRY.register()
def build_mobilenetv2_last_stride_backbone(cfg) -> MobileNetV2:
    """MobileNetV2 as ``build_mobilenetv2_backbone`` makes it; ``MODEL.BACKBONE.LAST_STRIDE`` 1 or 2 sets its last stride.

    With 1 a 128 x 64 image gives 8 x 4 patches (4 x 2 with 2). The weights are the same for both.
    """
    model = build_mobilenetv2_backbone(cfg)
    downsampling = [
        module
        for block in model.features
        if isinstance(block, InvertedResidual)
        for module in block.conv
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2)
    ]
    downsampling[-1].stride = (cfg.MODEL.BACKBONE.LAST_STRIDE,) * 2
    return model
