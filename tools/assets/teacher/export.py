"""Saves a trained teacher as a folder that open_clip loads."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from open_clip.model import CLIP

from fastreid_clip3d.common.files import replacing, write_atomically
from tools.assets.teacher.pictures import LabelledPictures
from tools.assets.teacher.settings import TrainingSettings

WEIGHTS_NAME = "open_clip_model.safetensors"
CONFIG_NAME = "open_clip_config.json"

_FEATURE_RMS = 0.45
"""Root mean square of the features of a raw CLIP image embedding (norm 10 at d = 512), on which L_global was tuned."""


@torch.no_grad()
def export(model: CLIP, settings: TrainingSettings, pictures: LabelledPictures, folder: str | Path) -> Path:
    """Saves the model, in float16, as a folder that open_clip loads with ``local-dir:``.

    The image projection is scaled so that raw features have the root mean square of CLIP's. Cosines and labels do not
    change.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = copy.deepcopy(model).cpu().eval()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (settings.mean, settings.std))
    sample = torch.from_numpy(pictures.images[:256]).permute(0, 3, 1, 2).float() / 255
    rms = model.encode_image((sample - mean) / std).square().mean().sqrt()
    model.visual.head.proj.weight.mul_(_FEATURE_RMS / rms)
    weights = {name: _halve(value) for name, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS_NAME) as temporary:
        save_file(weights, temporary)
    config = {"model_cfg": settings.model_config(), "preprocess_cfg": settings.preprocess_config()}
    write_atomically(folder / CONFIG_NAME, (json.dumps(config, indent=2) + "\n").encode())
    return folder


def _halve(value: torch.Tensor) -> torch.Tensor:
    return value.half().contiguous() if value.is_floating_point() else value.contiguous()
