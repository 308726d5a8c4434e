"""The export benchmark measures all three runners and writes json."""

from __future__ import annotations

import argparse
import json

import pytest

from fastreid_clip3d.errors import ClearError
from tools.benchmark import export


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    return parser.parse_args(list(options))


def test_figures_of_every_runner(run, tmp_path, capsys) -> None:
    written = tmp_path / "figures.json"
    figures = export.run(parse("--model", str(run), "--batch", "1", "3", "--seconds", "0.01", "--json", str(written)))
    assert json.loads(written.read_text()) == figures
    assert [row["batch"] for row in figures["rows"]] == [1, 3]
    for row in figures["rows"]:
        assert set(row["images_per_second"]) == {"pytorch", "torchscript", "onnx"}
        assert all(speed > 0 for speed in row["images_per_second"].values())
    assert max(figures["difference"].values()) < 1e-4
    assert "|" in capsys.readouterr().out


def test_wrong_options_are_named(run) -> None:
    with pytest.raises(ClearError, match="--batch must be at least 1"):
        export.run(parse("--model", str(run), "--batch", "0"))
