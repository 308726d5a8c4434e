"""The benchmark of searching runs and reports its options and figures."""

from __future__ import annotations

import argparse
import json

import pytest

from fastreid_clip3d.errors import ClearError
from tools.benchmark import search as benchmark


def measured(*options: str) -> dict:
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return benchmark.run(parser.parse_args(["--queries", "20", "--dims", "16", *options]))


def test_figures_of_a_small_run(tmp_path, capsys) -> None:
    out = tmp_path / "search.json"
    figures = measured("--gallery", "4000", "--people", "80", "--json", str(out))
    assert json.loads(out.read_text()) == figures
    assert 0 < figures["seconds_per_query"] <= figures["slowest_seconds"] and figures["build_seconds"] > 0
    assert figures["vectors_mib"] == pytest.approx(4000 * 16 * 4 / 2**20)
    assert "4,000 vectors (around 80 centres) x 16" in capsys.readouterr().out


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ClearError, match="at least 1"):
        measured("--gallery", "0")
