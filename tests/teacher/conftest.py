"""A tiny open_clip model on disk, for the mechanics of loading, caching and listing (its labels mean nothing)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file

from fastreid_clip3d.teacher import Teacher, load_teacher

MODEL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic", "resize_mode": "squash"}


def write_model(folder: Path, seed: int = 0, **preprocess) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    weights = CLIP(**MODEL).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "open_clip_model.safetensors")
    config = {"model_cfg": MODEL, "preprocess_cfg": {**PREPROCESS, **preprocess}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("teacher") / "tiny")


@pytest.fixture(scope="session")
def teacher(model_folder) -> Teacher:
    return load_teacher(f"local-dir:{model_folder}")


@pytest.fixture
def pictures(tmp_path) -> list[str]:
    """Nine images of noise, upright, not symmetric."""
    rng = np.random.default_rng(3)
    (tmp_path / "images").mkdir()
    paths = []
    for number in range(9):
        path = tmp_path / "images" / f"{number:02d}.png"
        Image.fromarray(rng.integers(0, 256, (48, 24, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return paths
