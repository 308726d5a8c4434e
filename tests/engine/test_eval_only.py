"""``--eval-only``: weights that fill the network are scored, all others are refused; classes of one's own are known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.config_loading import inference_config, load_config
from fastreid_clip3d.engine.run import evaluate
from fastreid_clip3d.engine.trainer import CLIP3DTrainer
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.visualization.report.record import read_run
from tests.conftest import REPOSITORY
from tests.engine.tiny_run import options

BAG_OF_TRICKS = str(REPOSITORY / "configs" / "Baselines" / "celeb_bagtricks.yml")


def score(data: Path, output: Path, weights: Path, **changed: str) -> float:
    changed = {"MODEL__WEIGHTS": str(weights), "DATALOADER__SYNTHETIC_PER_BATCH": "0", **changed}
    cfg = inference_config(load_config(BAG_OF_TRICKS, options(data, output, **changed)))
    cfg.freeze()
    output.mkdir(parents=True, exist_ok=True)
    return evaluate(cfg)["mAP"]


def test_only_weights_that_fill_the_network_are_scored(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(data))
    options_of_run = options(data, tmp_path, DATALOADER__SYNTHETIC_PER_BATCH="0")
    cfg = inference_config(load_config(BAG_OF_TRICKS, options_of_run))
    cfg.MODEL.HEADS.NUM_CLASSES = 17
    torch.manual_seed(0)
    weights = CLIP3DTrainer.build_model(cfg).state_dict()
    path = tmp_path / "weights.pth"
    torch.save({"model": weights}, path)
    expected = score(data, tmp_path / "out", path)
    old = {
        name.replace("bottleneck.0.", "bnneck.").replace("heads.weight", "heads.classifier.weight"): value
        for name, value in weights.items()
    }
    torch.save({"state_dict": {f"module.{name}": value for name, value in old.items()}}, path)
    assert score(data, tmp_path / "out", path) == expected
    torch.save({"model": {name: value for name, value in weights.items() if "layer4" not in name}}, path)
    with pytest.raises(ClearError, match=r"weights.pth \(MODEL.WEIGHTS\) lacks .*backbone.layer4"):
        score(data, tmp_path / "out", path)
    torch.save({"model": {f"net.{name}": value for name, value in weights.items()}}, path)
    with pytest.raises(ClearError, match="lacks .* of the .* tensors"):
        score(data, tmp_path / "out", path)
    torch.save({"model": weights}, path)
    with pytest.raises(ClearError, match="lacks .*backbone.layer1.2"):
        score(data, tmp_path / "out", path, MODEL__BACKBONE__DEPTH="34x")


OWN_BACKBONE = """
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from torch import nn


@BACKBONE_REGISTRY.register()
def build_my_own_backbone(cfg):
    return nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.BatchNorm2d(16), nn.ReLU())
"""


def test_a_backbone_of_ones_own_trains_and_is_loaded_with_permission(data: Path, tmp_path: Path) -> None:
    (tmp_path / "my_backbone.py").write_text(OWN_BACKBONE)
    changed = {
        "IMPORTS": "('my_backbone',)",
        "MODEL__BACKBONE__NAME": "build_my_own_backbone",
        "MODEL__BACKBONE__FEAT_DIM": "16",
        "DATALOADER__SYNTHETIC_PER_BATCH": "0",
        "SEED": "0",
    }

    def command(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "fastreid_clip3d", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "FASTREID_DATASETS": str(data), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    run = tmp_path / "run"
    trained = command("train", "--config-file", BAG_OF_TRICKS, *options(data, run, **changed))
    assert trained.returncode == 0, trained.stderr
    extract = (
        "extract",
        str(data / "query_0_0_0.png"),
        "--model",
        str(run),
        "--output",
        str(tmp_path / "features.npz"),
    )
    with pytest.raises(ClearError, match="names modules of the run's author.*my_backbone.*--allow-imports"):
        run_verb(extract)
    allowed = command(*extract, "--allow-imports")
    assert allowed.returncode == 0, allowed.stderr
    settings = (run / "config.yaml").read_bytes()
    again = command("train", "--config-file", str(run / "config.yaml"), "--eval-only", "MODEL.WEIGHTS", str(run))
    assert again.returncode == 0, again.stderr
    assert (run / "config.yaml").read_bytes() == settings, "an evaluation keeps the training's config"
    assert "--eval-only" not in read_run(run).command
    elsewhere = command(*again.args[3:], "OUTPUT_DIR", str(tmp_path / "evaluated"))
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert (tmp_path / "evaluated" / "config.yaml").is_file()
