"""A run folder for the benchmarks, as training leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inference.conftest import write_run
from tests.standins import small_config


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    write_run(folder, small_config())
    return folder
