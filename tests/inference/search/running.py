"""clip3d search and clip3d calibrate, run as from the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fastreid_clip3d.cli import run_verb


def searched(run: Path, gallery: Path, *options: str) -> dict:
    out = gallery.parent / "found.json"
    assert (
        run_verb(
            ["search", "--model", str(run), "--gallery", str(gallery), "--json", str(out), "--device", "cpu", *options]
        )
        == 0
    )
    return json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def names_of(answer: dict) -> list[str]:
    return [os.path.basename(hit["name"]) for hit in answer["hits"]]
