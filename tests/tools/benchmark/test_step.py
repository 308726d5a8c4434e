"""The benchmark of the training step: its contestants do what their names say, and its verdicts follow its figures."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fastreid_clip3d.errors import ClearError
from tests.conftest import REPOSITORY
from tools.benchmark import contestants, loading, step
from tools.benchmark.memory import peak_mib, tensors_mib

SMALL = [
    "MODEL.BACKBONE.DEPTH",
    "18x",
    "MODEL.BACKBONE.FEAT_DIM",
    "512",
    "INPUT.SIZE_TRAIN",
    "[32,16]",
    "MODEL.HEADS.MLP.HIDDEN_DIM",
    "16",
    "MODEL.LOSSES.OT.HIDDEN_DIM",
    "16",
    "MODEL.LOSSES.GLOBAL_DISTILL.HIDDEN_DIM",
    "16",
    "MODEL.LOSSES.BODY_SHAPE.HIDDEN_DIM",
    "16",
]


def parse(*options: str, changed: tuple[str, ...] = ()) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    step.add_arguments(parser)
    config = str(REPOSITORY / "configs" / "CLIP3D" / "celeb.yml")
    given = ["--config-file", config, "--device", "cpu", "--batch", "4", "--steps", "1", *options]
    return parser.parse_args([*given, *SMALL, *changed])


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    written = tmp_path_factory.mktemp("step") / "step.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contestants, "_vit_l14", lambda device: torch.nn.Flatten())
        return step.run(parse("--workers", "1", "--json", str(written))), written


def test_figures_of_a_small_run(figures: tuple[dict[str, Any], Path]) -> None:
    found, written = figures
    assert json.loads(written.read_text()) == found
    rows = {row["contestant"][:2].strip(): row for row in found["rows"]}
    assert list(rows) == ["a", "b", "a2", "c", "s", "d"]
    for row in rows.values():
        assert row["milliseconds"] == pytest.approx(sum(row[part] for part in step.PARTS), rel=1e-6)
        assert all(row[part] > 0 for part in step.PARTS if part != "teacher")
        weights = 11.2e6 * 4 / 2**20  # ResNet-18
        assert row["peak_mib"] is None or row["peak_mib"] > 2 * weights, "weights, gradients and more"
    assert found["ratios"]["c/a2"] == pytest.approx(rows["c"]["milliseconds"] / rows["a2"]["milliseconds"])
    assert found["precision"] == "float32" and found["rates"]["tflops"] > 0
    for name, row in rows.items():
        assert row["busy_share"] is None, "there is no device"
        if name == "d":
            assert row["floor"] is None
        else:
            assert 0 < row["floor"]["floor"] < row["milliseconds"], "no step is faster than its floor"
    assert found["met"] == {name: found["ratios"][name] <= 1.1 for name in ("b/a", "c/a2")}


def test_waiting_for_data_is_a_share_of_the_step(figures: tuple[dict[str, Any], Path]) -> None:
    loading = figures[0]["loading"]
    assert loading["workers"] == 1 and loading["images_per_second"] > 0 and loading["workers_needed"] >= 1
    assert loading["share"] == pytest.approx(loading["milliseconds_waited"] / loading["milliseconds_step"])
    assert loading["met"] == (loading["share"] <= 0.05)


def test_contestants_work_on_the_halves_that_their_names_say() -> None:
    arguments, seen = parse(), {}
    for name, kind in contestants.CONTESTANTS.items():
        if kind.online:
            continue
        contestant = contestants.Contestant(arguments, "cpu", kind, 4)
        counts: list[int] = []
        contestant.model.backbone.conv1.register_forward_pre_hook(
            lambda _, given, counts=counts: counts.append(len(given[0]))
        )
        before = contestant.model.backbone.conv1.weight.clone()
        contestant.step()
        seen[name[:2].strip()] = sum(counts)
        assert not torch.equal(contestant.model.backbone.conv1.weight, before), f"{name} trains"
    assert seen == {"a": 4, "b": 4, "a2": 8, "c": 8, "s": 4}


def test_slow_reading_is_reported(capsys: pytest.CaptureFixture) -> None:
    class Quick:
        def step(self, batch: Any) -> None:
            time.sleep(0.01)

    def slow() -> Any:
        while True:
            time.sleep(0.02)
            yield {}

    waited, whole = loading._waiting_steps(Quick(), slow(), 3)
    assert len(waited) == 3 and 0.4 < sum(waited) / sum(whole) < 0.9
    assert step._verdict(False, "5 %") == " (at most 5 %: NOT met)" and step._verdict(None, "") == ""


def test_wrong_options_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ClearError, match="--device is 'cuda'"):
        step.run(parse("--device", "cuda"))
    with pytest.raises(ClearError, match="config of the method"):
        step.run(parse(changed=("MODEL.META_ARCHITECTURE", "Baseline")))
    with pytest.raises(ClearError, match="not negative"):
        step.run(parse("--steps", "-1"))
    with pytest.raises(ClearError, match="float16 needs CUDA"):
        step.run(parse("--precision", "float16"))


def test_peak_memory_is_that_of_the_work() -> None:
    def work() -> float:
        return float(torch.ones(40 * 2**18).sum())  # 40 MiB

    torch.ones(80 * 2**18).sum()  # freed before: must not hide what the work takes
    peak, value = peak_mib(work, "cpu")
    assert value == 40 * 2**18 and 35 < peak < 60
    weight = torch.zeros(2**18)
    assert tensors_mib([weight, weight[10:], None, torch.zeros(2**18)]) == 2
