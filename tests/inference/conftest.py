"""A run folder as training leaves it, made on the spot: a ResNet-18 of random weights, trained with all losses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.modeling.meta_arch import build_model
from PIL import Image
from torch import nn

from fastreid_clip3d.compat.pixels import to_tensor
from fastreid_clip3d.engine.checkpoint import SafeCheckpointer
from fastreid_clip3d.inference import load_model
from tests.standins import small_config, tiny_teacher_folder

LOSSES = ("CrossEntropyLoss", "OTLoss", "GlobalDistillLoss", "BodyShapeLoss")


def write_run(folder: Path, cfg) -> nn.Module:
    """Builds the config's model, lets its batch norms see some pictures and saves both; the model in eval mode."""
    torch.manual_seed(0)
    model = build_model(cfg).train()
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = 1.0
    with torch.no_grad():  # on pictures, so that the neck takes away what all features have in common
        seen = torch.stack([to_tensor(picture(seed, *cfg.INPUT.SIZE_TEST)) for seed in range(100, 116)])
        seen = model.preprocess_image({"images": seen})
        model.heads.bottleneck(model.heads.pool_layer(model.backbone(seen)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(cfg.dump())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    SafeCheckpointer(model, str(folder), save_to_disk=True, optimizer=optimizer).save("model_final", epoch=3)
    return model.eval()


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> tuple[Path, nn.Module, object]:
    """Run folder, the model that was saved in it, its config."""
    root = tmp_path_factory.mktemp("trained")
    cfg = small_config(tiny_teacher_folder(root / "teacher"), LOSSES)
    model = write_run(root / "run", cfg)
    table = model.phrase_table.clone()
    shutil.rmtree(root / "teacher")
    model.expected_phrases = model.ot_loss.project(table).detach()
    return root / "run", model, cfg


@pytest.fixture(scope="session")
def run(trained) -> Path:
    return trained[0]


@pytest.fixture(scope="session")
def model(run):
    return load_model(run, "cpu")


@pytest.fixture
def own_run(run, tmp_path) -> Path:
    """A copy of the run folder to break."""
    return Path(shutil.copytree(run, tmp_path / "own_run"))


def picture(seed: int, height: int = 80, width: int = 40) -> Image.Image:
    """A picture with edges and plain areas, RGB."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.NEAREST)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Twelve PNG pictures of different sizes."""
    place = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        picture(number, 60 + 5 * number, 30 + number).save(place / f"p{number}.png")
    return place
