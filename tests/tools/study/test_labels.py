"""How good labels are: against a slow count, and with a real teacher."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from fastreid_clip3d.errors import ClearError
from tools.study import labels as subject


def test_accuracy_majority_and_balance_are_what_counting_gives() -> None:
    generator = np.random.default_rng(0)
    truth = (generator.random((50, 16)) < np.linspace(0.1, 0.9, 16)).astype(int)
    truth[:, 3] = 1
    found = generator.integers(0, 2, (50, 16))
    quality = subject.label_quality(found, truth)
    assert quality.images == 50
    for pair in range(16):
        right = [int(found[image, pair] == truth[image, pair]) for image in range(50)]
        of_phrase = [[r for r, t in zip(right, truth[:, pair]) if t == phrase] for phrase in (0, 1)]
        assert quality.accuracy[pair] == pytest.approx(sum(right) / 50)
        assert quality.majority_rate[pair] == pytest.approx(max(map(len, of_phrase)) / 50)
        shares = [sum(group) / len(group) for group in of_phrase if group]
        assert quality.balanced_accuracy[pair] == pytest.approx(sum(shares) / len(shares))
    perfect, constant = subject.label_quality(truth, truth), subject.label_quality(np.ones_like(truth), truth)
    assert (perfect.accuracy == 1).all() and (perfect.balanced_accuracy == 1).all()
    varied = [pair for pair in range(16) if pair != 3]
    np.testing.assert_allclose(constant.balanced_accuracy[varied], 0.5)


def test_each_teacher_is_measured_and_a_missing_one_is_named(
    benchmark_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = benchmark_folder
    teacher = f"local-dir:{data / 'teacher'}"
    gone = f"local-dir:{tmp_path / 'gone'}"
    found, left_out = subject.measure([teacher, gone], data / "SynthCC-tiny", tmp_path / "answers")
    assert set(found) == {(teacher, "train"), (teacher, "val")} and set(left_out) == {gone}
    assert "gone" in capsys.readouterr().out
    assert found[teacher, "train"].images == 32 and found[teacher, "val"].images == 3 * 2 + 3 * 4
    markdown = subject.write_quality(tmp_path, found, left_out, "the command")
    assert "| Long Legs / Short Legs" in markdown and "mean of the 16" in markdown and f"left out: {gone}" in markdown
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    assert float(rows[0]["accuracy"]) == pytest.approx(found[teacher, "train"].accuracy[0], abs=1e-6)


def test_no_teacher_at_hand_is_an_error(benchmark_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ClearError, match="None of the teachers"):
        subject.table_of_labels([f"local-dir:{tmp_path / 'gone'}"], tmp_path, benchmark_folder, "")
