"""Both image sizes of a config, tried with the student before the first step."""

from __future__ import annotations

from typing import Any

import torch
from fastreid.config import CfgNode
from torch import nn

from fastreid_clip3d.engine.modes import modes_kept
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones.build import student_maps

IMAGES = 2
"""Images of the trial batch."""


def check_image_sizes(cfg: CfgNode, model: nn.Module) -> None:
    """Refuses an ``INPUT.SIZE_TRAIN`` or ``INPUT.SIZE_TEST`` that the student cannot take or makes no patch of.

    The model, its running statistics and the random numbers of the run stay as they are.

    Raises:
        ClearError: the key, the student, and what went wrong.
    """
    backbone = cfg.MODEL.BACKBONE
    student = f"the student {backbone.NAME} {backbone.DEPTH}"
    devices = [torch.cuda.current_device()] if cfg.MODEL.DEVICE.startswith("cuda") else []
    with modes_kept(model), torch.random.fork_rng(devices=devices), torch.no_grad():
        model.eval()
        for key, size in (("INPUT.SIZE_TRAIN", cfg.INPUT.SIZE_TRAIN), ("INPUT.SIZE_TEST", cfg.INPUT.SIZE_TEST)):
            _try(model, key, tuple(size), student)


def _try(model: Any, key: str, size: tuple[int, int], student: str) -> None:
    shown = f"{key} [{size[0]}, {size[1]}]"
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    images = torch.full((IMAGES, 3, *size), 127.5, device=device)
    try:
        if hasattr(model, "heads"):
            feature_map = student_maps(model.backbone, model.preprocess_image({"images": images.clone()})).feature_map
            if not feature_map.numel():
                raise ClearError(
                    f"{shown}: {student} makes a feature map of {feature_map.shape[2]} x {feature_map.shape[3]} "
                    "patches of it, so there is nothing to learn from. Set a larger size."
                )
        features = model({"images": images})
    except ClearError:
        raise
    except Exception as error:  # whatever a network made for another size does
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ClearError(
            f"{shown}: {student} cannot take images of this size ({reason[:300]}). Set {key} to a size that it takes, "
            "for a network of one size the same for INPUT.SIZE_TRAIN and INPUT.SIZE_TEST."
        ) from error
    if not isinstance(features, torch.Tensor) or features.shape[0] != IMAGES or not features.numel():
        raise ClearError(f"{shown}: {student} gives no feature per image.")
