"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from tests.inference.conftest import LOSSES, write_run
from tests.standins import small_config, tiny_teacher_folder

MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for path in (REPOSITORY / "fastreid_clip3d").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
PUBLIC = (
    "common.near_names",
    "config",
    "config_loading",
    "evaluation.calibration",
    "evaluation.ranking",
    "inference.load",
    "modeling.losses.body_shape",
    "modeling.losses.global_distill",
    "modeling.losses.optimal_transport",
    "modeling.losses.sinkhorn",
    "teacher.labels",
    "teacher.statistics",
)
"""Modules whose public functions a reader calls: each of them has an example."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name: a run and two pictures."""
    root = tmp_path_factory.mktemp("demo")
    write_run(root / "logs" / "demo" / "clip3d", small_config(tiny_teacher_folder(root / "teacher"), LOSSES))
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (64, 32, 3), dtype=np.uint8)).save(
            root / name
        )
    return root


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.attempted and not results.failed


@pytest.mark.parametrize("name", PUBLIC)
def test_public_modules_have_examples(name: str) -> None:
    assert f"fastreid_clip3d.{name}" in MODULES
