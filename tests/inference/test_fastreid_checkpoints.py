"""Checkpoints of fast-reid with its own configs: every release's names of the tensors load, and nothing stays random.

The names of old releases are those that users report in fast-reid's issues 427, 486 and 617: ``heads.bnneck.*``,
``heads.classifier.weight``, ``pixel_mean`` and ``heads.pool_layer.p`` among the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from fastreid.modeling.meta_arch import build_model

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference import load_model
from tests.inference.conftest import picture

BASE = """\
MODEL:
  META_ARCHITECTURE: Baseline
  BACKBONE: {NAME: build_resnet_backbone, NORM: BN, DEPTH: 18x, LAST_STRIDE: 1, FEAT_DIM: 512, PRETRAIN: True}
  HEADS: {NAME: EmbeddingHead, NORM: BN, WITH_BNNECK: True, POOL_LAYER: GlobalAvgPool, NECK_FEAT: before,
          CLS_LAYER: Linear}
  LOSSES:
    NAME: ("CrossEntropyLoss", "TripletLoss",)
INPUT: {SIZE_TRAIN: [64, 32], SIZE_TEST: [64, 32], REA: {ENABLED: True}}
SOLVER: {OPT: Adam, WARMUP_ITERS: 2000}
CUDNN_BENCHMARK: True
"""
SBS = """\
_BASE_: ../Base-bagtricks.yml
MODEL:
  FREEZE_LAYERS: [ backbone ]
  HEADS: {NECK_FEAT: after, POOL_LAYER: GeneralizedMeanPoolingP, CLS_LAYER: CircleSoftmax, SCALE: 64, MARGIN: 0.35}
DATASETS:
  NAMES: ("Market1501",)
  TESTS: ("Market1501",)
OUTPUT_DIR: logs/market1501/sbs_R50
"""

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> tuple[Path, Path, torch.nn.Module]:
    """The folder of a checkpoint, its config elsewhere, and fast-reid's own network."""
    root = tmp_path_factory.mktemp("fastreid")
    (root / "configs" / "Market1501").mkdir(parents=True)
    (root / "configs" / "Base-bagtricks.yml").write_text(BASE)
    config = root / "configs" / "Market1501" / "sbs.yml"
    config.write_text(SBS)
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.HEADS.NUM_CLASSES = "cpu", False, 751
    torch.manual_seed(0)
    network = build_model(cfg).eval()
    with torch.no_grad():
        network.heads.pool_layer.p.fill_(2.5)
        for value in (network.heads.bottleneck[0].running_mean, network.heads.bottleneck[0].running_var):
            value.copy_(torch.rand(512) + 0.5)
        network.heads.bottleneck[0].weight.copy_(torch.rand(512) + 0.5)
    return root, config, network


def today(weights: Weights) -> Weights:
    return weights


def before_1_3(weights: Weights) -> Weights:
    return {
        name.replace("bottleneck.0.", "bnneck.").replace("heads.weight", "heads.classifier.weight"): value
        for name, value in weights.items()
    }


def with_a_classifier_of_the_network(weights: Weights) -> Weights:
    return {name.replace("heads.weight", "classifier.weight"): value for name, value in weights.items()}


def half_old(weights: Weights) -> Weights:
    return {name.replace("heads.weight", "heads.classifier.weight"): value for name, value in weights.items()}


def with_pixels(weights: Weights) -> Weights:
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    return {**before_1_3(weights), "pixel_mean": mean.view(1, 3, 1, 1), "pixel_std": std.view(1, 3, 1, 1)}


def without_classifier(weights: Weights) -> Weights:
    return {name: value for name, value in weights.items() if name != "heads.weight"}


FORMS = [today, before_1_3, with_a_classifier_of_the_network, half_old, with_pixels, without_classifier]


def saved(network: torch.nn.Module, path: Path, form: Callable[[Weights], Weights]) -> Path:
    torch.save({"model": form(dict(network.state_dict())), "epoch": 59}, path)
    return path


def expected(network: torch.nn.Module) -> torch.Tensor:
    """fast-reid's own features of four pictures."""
    rows = [np.asarray(picture(seed).resize((32, 64), 3)).transpose(2, 0, 1) for seed in range(4)]
    with torch.no_grad():
        return F.normalize(network({"images": torch.from_numpy(np.stack(rows)).float()}))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_releases_names_load(released, form) -> None:
    root, config, network = released
    path = saved(network, root / "market_sbs_R50.pth", form)
    model = load_model(path, "cpu", config=str(config))
    found = model([picture(seed) for seed in range(4)])
    torch.testing.assert_close(found, expected(network), atol=1e-5, rtol=0)
    assert (model.size, model.feature_dim) == ((64, 32), 512)


@pytest.mark.parametrize("lost", ["heads.bottleneck.0.weight", "heads.bottleneck.0.running_mean", "heads.pool_layer.p",
                                  "backbone.layer1.0.conv1.weight"])  # fmt: skip
def test_a_tensor_that_would_stay_random_is_named(released, lost) -> None:
    root, config, network = released
    path = saved(network, root / "lost.pth", lambda weights: {k: v for k, v in weights.items() if k != lost})
    with pytest.raises(ClearError, match=f"lost.pth lacks 1 of the .* tensors .*: {lost}"):
        load_model(path, "cpu", config=str(config))


def test_the_config_of_another_pooling_or_of_other_pixels_is_refused(released) -> None:
    root, config, network = released
    path = saved(network, root / "market_sbs_R50.pth", with_pixels)
    other = config.with_name("other.yml")
    other.write_text(SBS.replace("GeneralizedMeanPoolingP", "GeneralizedMeanPooling"))
    with pytest.raises(ClearError, match="1 tensors more .*POOL_LAYER GeneralizedMeanPoolingP.*: heads.pool_layer.p"):
        load_model(path, "cpu", config=str(other))
    other.write_text(SBS.replace("MODEL:", "MODEL:\n  PIXEL_MEAN: [0.0, 0.0, 0.0]"))
    with pytest.raises(ClearError, match="trained with pixel_mean .*123.* MODEL.PIXEL_MEAN of .*other.yml is .*0.0"):
        load_model(path, "cpu", config=str(other))


def test_config_is_a_flag_of_the_verbs(released, tmp_path) -> None:
    root, config, network = released
    path = saved(network, root / "market_sbs_R50.pth", before_1_3)
    for seed in range(4):
        picture(seed).save(tmp_path / f"{seed}.png")
    words = ["extract", str(tmp_path), "--model", str(path), "--device", "cpu", "--output", str(tmp_path / "f.npz")]
    with pytest.raises(ClearError, match="name the config file: --config FILE"):
        run_verb(words)
    with pytest.raises(ClearError, match="--config gone.yml: no such file"):
        run_verb([*words, "--config", "gone.yml"])
    assert run_verb([*words, "--config", str(config)]) == 0
    with np.load(tmp_path / "f.npz") as content:
        np.testing.assert_allclose(content["features"], expected(network).numpy(), atol=1e-5)
    assert (
        run_verb(["export", "--model", str(path), "--config", str(config), "--output", str(tmp_path / "m.onnx")]) == 0
    )
    found = load_model(tmp_path / "m.onnx", "cpu")([picture(seed) for seed in range(4)])
    torch.testing.assert_close(found, expected(network), atol=1e-4, rtol=0)
