"""One small benchmark for all tests of studies; they only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.study.small_benchmark import make_benchmark


@pytest.fixture(scope="session")
def benchmark_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_benchmark(tmp_path_factory.mktemp("benchmark"))
