"""Gradients relative to cross-entropy: norms by hand, and the printed weights give the wanted ratios."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from tests.engine.tiny_run import CONFIG, options, write_datasets
from tools.study import loss_weights


class Plain(nn.Module):
    """Gradients at the feature map: 2 sqrt(4) for cross-entropy, thrice as long for the triplet loss, none else."""

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__()
        self.backbone, self.scale = nn.Linear(2, 2), scale
        self.probe = nn.Linear(1, 1)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.backbone(batch)
        return {
            "loss_cls": self.scale * features.sum(),
            "loss_triplet": 6 * features.sum(),
            "loss_probe": self.probe.weight.sum(),
        }


def trainer_of(model: nn.Module) -> SimpleNamespace:
    return SimpleNamespace(model=model, _trainer=SimpleNamespace(_data_loader_iter=iter([torch.ones(2, 2)])))


def test_ratios_by_hand() -> None:
    ratios = loss_weights.ratios_of_a_batch(trainer_of(Plain()))
    assert ratios == pytest.approx({"loss_cls": 1.0, "loss_triplet": 3.0, "loss_probe": 0.0})
    with pytest.raises(ClearError, match="Cross-entropy has no gradient"):
        loss_weights.ratios_of_a_batch(trainer_of(Plain(0.0)))


def test_the_table_scales_weights_and_names_keys() -> None:
    cfg = load_config("", ["MODEL.LOSSES.TRI.SCALE", "0.5"])
    ratios = {"loss_cls": 1.0, "loss_triplet": 3.0, "loss_probe": 0.0, "loss_global": 0.0}
    rows = loss_weights.table_of(cfg, ratios, {"loss_triplet": 1.5, "loss_global": 1.0})
    assert [(row.loss, row.key, row.wanted) for row in rows] == [
        ("loss_triplet", "TRI.SCALE", 0.25),
        ("loss_probe", "", None),
        ("loss_global", "GLOBAL_DISTILL.SCALE", None),  # without a gradient, no weight helps
    ]
    text = loss_weights.report(rows)
    assert "| loss_triplet | TRI.SCALE | 0.5 | 3 | 0.25 |" in text
    assert text.endswith("\n\nMODEL.LOSSES.TRI.SCALE 0.25")


def test_the_printed_weights_give_the_wanted_ratios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_datasets(tmp_path)
    monkeypatch.setenv("FASTREID_DATASETS", str(data))
    monkeypatch.setattr("fastreid.data.build._root", str(data))
    keys = options(data, tmp_path / "run", MODEL__LOSSES__GLOBAL_DISTILL__REDUCTION="kl")
    cfg = load_config(CONFIG, keys)
    wanted = loss_weights.wanted_ratios(0.5, [["loss_ot", "0.2"]])
    rows = loss_weights.table_of(cfg, loss_weights.measure(cfg, batches=1), wanted)
    assert {row.loss for row in rows} == {
        "loss_ot", "loss_ot_synthetic", "loss_global", "loss_probe", "loss_body_shape",
    }  # fmt: skip
    assert not (tmp_path / "run").exists()
    set_to = [text for row in rows if row.wanted for text in (f"MODEL.LOSSES.{row.key}", str(row.wanted))]
    ratios = loss_weights.measure(load_config(CONFIG, [*keys, *set_to]), batches=1)
    expected = {"loss_cls": 1.0, "loss_probe": 0.0, "loss_ot": 0.2}
    expected |= {"loss_ot_synthetic": 0.5, "loss_global": 0.5, "loss_body_shape": 0.5}
    assert ratios == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("of_each", "of_one", "message"),
    [
        (None, [["loss_cls", "1"]], "--ratio-of loss_cls: known losses are loss_ot,"),
        (None, [["loss_ot", "much"]], "wanted ratio of loss_ot must be a number above 0"),
        (-1.0, [], "must be a number above 0"),
    ],
)
def test_wrong_ratios_are_named(of_each: float | None, of_one: list[list[str]], message: str) -> None:
    with pytest.raises(ClearError, match=message):
        loss_weights.wanted_ratios(of_each, of_one)
