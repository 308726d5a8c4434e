"""The rendering benchmark: both renderers make the same pictures, and its figures fit together."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from fastreid_clip3d.errors import ClearError
from tools.benchmark import render


def test_benchmark_prints_writes_and_compares(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    render.add_arguments(parser)
    command = ["--images", "10", "--stock-images", "1", "--repeats", "1", "--size", "48", "24", "--threads", "1"]
    figures = render.run(parser.parse_args([*command, "--json", str(tmp_path / "figures.json")]))
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    assert figures["largest_difference"] <= 1
    for ratio, rate in (("ratio", "rasterizer_per_second"), ("ratio_of_pictures", "pictures_per_second")):
        assert figures[ratio] == pytest.approx(figures[rate] / figures[f"stock_{rate}"])
    assert figures["seconds_for_10000"] == pytest.approx(10000 / figures["pictures_per_second"])
    assert figures["device"] == "cpu, 1 threads"
    printed = capsys.readouterr().out
    assert "PyTorch3D CPU" in printed and "ratio" in printed


def test_cuda_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parser = argparse.ArgumentParser()
    render.add_arguments(parser)
    with pytest.raises(ClearError, match="--device is 'cuda', but .* sees no CUDA device"):
        render.run(parser.parse_args(["--device", "cuda"]))
