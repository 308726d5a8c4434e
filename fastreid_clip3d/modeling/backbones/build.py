"""One way to build any student by its config, and one way to get global and local features out of it.

B: images. d': width of the student (``MODEL.BACKBONE.FEAT_DIM``). N = h x w: patches.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import torch
from fastreid.config import CfgNode
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fastreid_clip3d.compat.blocks import backbones_built_by, watch_loading
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones.pretrained import check_finite, check_loaded, readable_by_builders
from fastreid_clip3d.modeling.backbones.timm_backbone import TimmBackbone
from fastreid_clip3d.modeling.backbones.vit_tokens import vit_maps

Builder = Callable[[Any], nn.Module]
"""``builder(cfg)`` -> backbone."""

_SOURCES_OF_WEIGHTS = {
    "build_mobilenetv2": 'for "1.0x" export_mobilenetv2_weights in fastreid_clip3d.modeling.backbones.pretrained '
    "writes it without a download; other widths: github.com/d-li14/mobilenetv2.pytorch",
    "build_shufflenetv2": "github.com/megvii-model/ShuffleNet-Series, ShuffleNetV2",
    "build_repvgg": "github.com/DingXiaoH/RepVGG, the files for training",
    "build_vit": "github.com/huggingface/pytorch-image-models, releases: jx_vit_base_p16_224-80ecf9dd.pth (depth base)",
    "build_timm": "huggingface.co/timm, model.safetensors of the network",
}
"""By the start of a builder's name: where to download the file if fast-reid knows no address."""


def build_student(cfg: CfgNode) -> nn.Module:
    """The backbone named by ``MODEL.BACKBONE``, with pretrained weights either complete or an error.

    Raises:
        ClearError: the name or depth is unknown; the weights cannot be downloaded or read, or do not fill the network;
            ``FEAT_DIM`` is neither the network's width nor 0.
    """
    options = cfg.MODEL.BACKBONE
    student = f"{options.NAME} {options.DEPTH}"
    builder = _find_builder(options.NAME)
    if options.PRETRAIN and options.PRETRAIN_PATH and not os.path.isfile(options.PRETRAIN_PATH):
        raise ClearError(
            f"{options.PRETRAIN_PATH}: no such file (MODEL.BACKBONE.PRETRAIN_PATH). "
            f"{_where_to_download(builder, options)}"
        )
    with readable_by_builders(cfg) as readable, watch_loading() as records:
        try:
            backbone = builder(readable)
        except ClearError:
            raise
        except KeyError as error:
            if error.args and error.args[0] == options.DEPTH:
                raise ClearError(f"{options.NAME} has no MODEL.BACKBONE.DEPTH {options.DEPTH!r}.") from error
            _raise_without_weights(builder, options, error)
        except Exception as error:
            _raise_without_weights(builder, options, error)
    if options.PRETRAIN:
        source = options.PRETRAIN_PATH or "the downloaded file"
        check_loaded(records, student, source)
        check_finite(backbone, source)
    _check_width(backbone, cfg)
    return backbone


def whole_students() -> contextlib.AbstractContextManager[None]:
    """In this block fast-reid's meta-architectures build their backbone by :func:`build_student`."""
    return backbones_built_by(build_student)


class StudentMaps(NamedTuple):
    """What a student makes of B images. For convolutional students both are the same tensor."""

    head_input: Tensor
    """What the head pools into f_id, always ``backbone(images)``: [B, d', h, w], or a class token [B, d', 1, 1]."""

    feature_map: Tensor
    """The local features F: [B, d', h, w]."""

    def split(self, count: int) -> tuple[StudentMaps, StudentMaps]:
        """The maps of the first ``count`` images and of the others."""
        first, others = zip(*((part[:count], part[count:]) for part in self))
        return StudentMaps(*first), StudentMaps(*others)


def student_maps(backbone: nn.Module, images: Tensor) -> StudentMaps:
    """Normalised images [B, 3, H, W] through any student.

    A transformer that classifies by its class token gives that to the head and its patch tokens as local features.
    """
    if isinstance(backbone, TimmBackbone):
        return StudentMaps(*backbone.maps(images))
    if isinstance(backbone, VisionTransformer):
        return StudentMaps(*vit_maps(backbone, images))
    feature_map = backbone(images)
    return StudentMaps(feature_map, feature_map)


def _find_builder(name: str) -> Builder:
    known = sorted(BACKBONE_REGISTRY._obj_map)
    if name in known:
        return BACKBONE_REGISTRY.get(name)
    nearest = difflib.get_close_matches(str(name), known, 1, 0)
    raise ClearError(f"MODEL.BACKBONE.NAME {name!r} is unknown. Nearest: {nearest[0]}. Known: {', '.join(known)}.")


def _raise_without_weights(builder: Builder, options: CfgNode, error: Exception) -> NoReturn:
    """Turns a failure of loading into a message; a failure without pretrained weights is a bug and stays one."""
    if not options.PRETRAIN:
        raise error
    source = options.PRETRAIN_PATH or "no file named by MODEL.BACKBONE.PRETRAIN_PATH, and none could be downloaded"
    reason = " ".join(str(error).split()).rstrip(".")
    raise ClearError(
        f"Pretrained weights of {options.NAME} {options.DEPTH} cannot be loaded ({source}): "
        f"{type(error).__name__}: {reason}. {_where_to_download(builder, options)}"
    ) from error


def _where_to_download(builder: Builder, options: CfgNode) -> str:
    """Which file, where, and which key."""
    urls = getattr(sys.modules[builder.__module__], "model_urls", {})
    depth = str(options.DEPTH).rstrip("x") if "resnest" in options.NAME else str(options.DEPTH)
    parts = [part for part, chosen in (("se_", options.WITH_SE), ("ibn_", options.WITH_IBN)) if chosen]
    fitting = [key for key in urls if key.endswith(depth) and all(part in key for part in parts)]
    if fitting:
        where = f"Download the file from {urls[min(fitting, key=len)]}"
    else:
        known = [text for start, text in _SOURCES_OF_WEIGHTS.items() if options.NAME.startswith(start)]
        where = f"Where to get the file: {known[0]}" if known else "fast-reid knows no address for these weights"
    return f"{where}. Name it by MODEL.BACKBONE.PRETRAIN_PATH, or set MODEL.BACKBONE.PRETRAIN False."


def _check_width(backbone: nn.Module, cfg: CfgNode) -> None:
    """Raises unless one black image gives as many channels as the config says (0: any number)."""
    was_training = backbone.training
    backbone.eval()
    with torch.no_grad():
        feature_map = student_maps(backbone, torch.zeros(1, 3, *cfg.INPUT.SIZE_TRAIN))[1]
    backbone.train(was_training)
    width, options = feature_map.shape[1], cfg.MODEL.BACKBONE
    if options.FEAT_DIM not in (0, width):
        raise ClearError(
            f"{options.NAME} {options.DEPTH} is {width} wide, but MODEL.BACKBONE.FEAT_DIM is {options.FEAT_DIM}. "
            f"Set MODEL.BACKBONE.FEAT_DIM {width}."
        )
