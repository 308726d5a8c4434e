"""The benchmark of labelling runs on a small teacher and reports whether it reaches the limit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import open_clip
import pytest
import torch

from fastreid_clip3d.errors import ClearError
from tests.standins import TINY_CLIP, tiny_teacher_folder
from tools.benchmark import label


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    label.add_arguments(parser)
    small = ["--images", "6", "--batch", "4", "--size", "16", "8", "--workers", "0", "--repeats", "1"]
    return parser.parse_args([*small, *options])


def test_figures_of_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    teacher, written = tiny_teacher_folder(tmp_path / "teacher"), tmp_path / "label.json"
    figures = label.run(parse("--teacher", teacher, "--device", "cpu", "--json", str(written)))
    assert json.loads(written.read_text()) == figures
    assert figures["ratio"] == pytest.approx(figures["labelled_per_second"] / figures["bare_per_second"])
    assert figures["met"] == (figures["ratio"] >= 0.9) and figures["limit"] == 0.9
    assert figures["bare_peak_mib"] is None or figures["bare_peak_mib"] >= 0
    assert ("NOT met" in capsys.readouterr().out) == (not figures["met"])


def test_cuda_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ClearError, match="--device is 'cuda', but .* sees no CUDA device"):
        label.run(parse("--device", "cuda"))


def test_a_model_of_open_clip_with_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tiny-14": TINY_CLIP, "tiny-16": TINY_CLIP})
    figures = label.run(parse("--random-weights", "tiny/14", "--device", "cpu"))
    assert figures["teacher"] == "tiny/14 (random weights)" and figures["labelled_per_second"] > 0
    with pytest.raises(ClearError, match="--random-weights tiny-15 .*tiny-14"):
        label.run(parse("--random-weights", "tiny-15"))
