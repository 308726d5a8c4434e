"""The rendering benchmark: both ways make the same pictures, and ours is far sooner."""

from __future__ import annotations

import argparse
import json

from fastreid_clip3d.benchmarks import render


def test_benchmark_prints_writes_and_compares(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    render.add_arguments(parser)
    command = ["--images", "10", "--stock-images", "1", "--repeats", "1", "--size", "48", "24", "--threads", "1"]
    figures = render.run(parser.parse_args([*command, "--json", str(tmp_path / "figures.json")]))
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    assert figures["largest_difference"] <= 1
    assert figures["ratio"] == figures["rasterizer_per_second"] / figures["stock_rasterizer_per_second"]
    assert figures["ratio"] > 2  # at this size; at 256 x 128 it is more than a hundred
    printed = capsys.readouterr().out
    assert "PyTorch3D CPU" in printed and "ratio" in printed
