"""The benchmark of the teacher's training runs on a small tower, and its figures fit together."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from fastreid_clip3d.errors import ClearError
from tools.assets.teacher.training import TeacherTraining
from tools.benchmark import teacher


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    teacher.add_arguments(parser)
    small = ["--steps", "3", "--warmup", "1", "--batch", "4", "--tower", "test_efficientnet", "--device", "cpu"]
    return parser.parse_args([*small, *options])


def test_figures_of_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    own_step = TeacherTraining.train_step
    monkeypatch.setattr(TeacherTraining, "train_step", lambda self: taken.append(self.step) or own_step(self))
    figures = teacher.run(parse("--json", str(tmp_path / "teacher.json")))
    assert json.loads((tmp_path / "teacher.json").read_text()) == figures
    assert taken == [0, 1, 2, 3], "the warm-up and the measured steps"
    assert figures["steps_per_second"] == pytest.approx(1000 / figures["milliseconds"])
    assert figures["pictures_per_second"] == pytest.approx(4 * figures["steps_per_second"])


def test_no_steps_are_an_error() -> None:
    with pytest.raises(ClearError, match="--steps is 0"):
        teacher.run(parse("--steps", "0"))
