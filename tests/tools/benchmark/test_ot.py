"""The benchmark of the optimal transport loss runs, and all its contestants compute the same number."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from fastreid_clip3d.errors import ClearError
from tools.benchmark import ot


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    ot.add_arguments(parser)
    return parser.parse_args(
        ["--batch", "3", "--patches", "6", "--width", "8", "--text-width", "5", "--repeats", "1", *options]
    )


def test_rows_of_a_small_run(tmp_path, capsys) -> None:
    figures = ot.run(parse("--device", "cpu", "--iterations", "1", "20", "--json", str(tmp_path / "ot.json")))
    assert json.loads((tmp_path / "ot.json").read_text()) == figures
    assert {(row["part"], row["solver"], row["iterations"]) for row in figures["rows"]} == {
        (part, solver, iterations)
        for part in ("solver", "loss")
        for solver in ("ours", "POT batched", "POT image by image")
        for iterations in (1, 20)
    }
    assert all(row["ratio"] == 1 for row in figures["rows"] if row["solver"] == "ours")
    assert "POT image by image" in capsys.readouterr().out


def test_a_contestant_that_computes_something_else_is_caught(monkeypatch) -> None:
    monkeypatch.setattr("ot.sinkhorn", lambda a, b, cost, *args, **settings: torch.zeros_like(cost))
    with pytest.raises(AssertionError, match="POT image by image"):
        ot.run(parse("--device", "cpu", "--iterations", "1"))


def test_cuda_that_is_not_there_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ClearError, match="--device is 'cuda', but .* sees no CUDA device"):
        ot.run(parse("--device", "cuda"))
