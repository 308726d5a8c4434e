"""A small run folder with random weights, and folders of small pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.modeling.meta_arch import build_model
from PIL import Image

from tests.standins import small_config, tiny_teacher_folder


def save_run(folder: Path, cfg, seed: int = 0) -> Path:
    """A run folder as training leaves it."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    network = build_model(cfg)
    torch.save({"model": network.state_dict()}, folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A student with a text space, and its teacher at hand."""
    place = tmp_path_factory.mktemp("runs")
    cfg = small_config(tiny_teacher_folder(place / "teacher"), ("CrossEntropyLoss", "OTLoss"))
    return save_run(place / "run", cfg)


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory) -> Path:
    """A student without a text space."""
    return save_run(tmp_path_factory.mktemp("plain") / "run", small_config(), seed=1)


def draw(path: Path, seed: int) -> Path:
    """A picture of coarse random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((32, 64), Image.Resampling.NEAREST).save(path)
    return path


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    folder = tmp_path / "gallery"
    for number in range(12):
        draw(folder / f"camera{number % 2}" / f"{number}.png", number)
    return folder


@pytest.fixture
def synthcc(tmp_path: Path, monkeypatch) -> Path:
    """A SynthCC-tiny of 12 people, 2 outfits, 2 cameras, with its table of descriptors."""
    folder = tmp_path / "datasets" / "SynthCC-tiny"
    files = []
    for person in range(12):
        for outfit in (1, 2):
            for camera in (1, 2):
                split = "query" if camera == 1 else "gallery"
                files.append(f"{split}/{person:04d}_o{outfit}_c{camera}_00.jpg")
                draw(folder / files[-1], person * 10 + outfit)
    choices = np.random.default_rng(0).integers(0, 2, (12, 16)).repeat(4, axis=0)
    np.savez(folder / "index.npz", files=np.array(files), phrase_choices=choices)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "datasets"))
    return folder
