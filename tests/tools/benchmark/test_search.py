"""The benchmark of searching runs, and its recall is measured against the exact index."""

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


def test_rows_of_a_small_run(tmp_path, capsys) -> None:
    out = tmp_path / "search.json"
    figures = measured("--gallery", "4000", "--people", "80", "--json", str(out))
    assert json.loads(out.read_text()) == figures
    exact, approximate = figures["rows"]
    assert (exact["recall"], exact["first_recall"], exact["clusters"]) == (1.0, 1.0, None)
    assert 0.7 < approximate["recall"] <= 1.0 and approximate["clusters_searched"] <= approximate["clusters"]
    assert all(0 < row["seconds_per_query"] <= row["slowest_seconds"] for row in figures["rows"])
    assert "4,000 vectors (around 80 centres) x 16" in capsys.readouterr().out


def test_one_index_alone_and_wrong_numbers() -> None:
    assert [row["index"] for row in measured("--gallery", "100", "--only", "exact")["rows"]] == ["exact"]
    with pytest.raises(ClearError, match="1 or more"):
        measured("--gallery", "0")
