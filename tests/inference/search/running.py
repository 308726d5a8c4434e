"""The tools themselves, run as from the command line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import calibrate as calibrate_tool  # noqa: E402
import search as tool  # noqa: E402

__all__ = ["calibrate_tool", "names_of", "searched", "tool"]


def searched(run: Path, gallery: Path, *options: str) -> dict:
    out = gallery.parent / "found.json"
    assert (
        tool.main(["--model", str(run), "--gallery", str(gallery), "--json", str(out), "--device", "cpu", *options])
        == 0
    )
    return json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def names_of(answer: dict) -> list[str]:
    return [os.path.basename(hit["name"]) for hit in answer["hits"]]
