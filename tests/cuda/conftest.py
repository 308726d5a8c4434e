"""Where a test runs: on a CUDA device (marked `cuda`) and, to try the test itself, on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.tiny_run import write_datasets


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """The device of a test that is cheap enough to run on a CPU too."""
    return request.param


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_datasets(tmp_path_factory.mktemp("datasets"))


@pytest.fixture
def datasets_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTREID_DATASETS", str(data))
    monkeypatch.setattr("fastreid.data.build._root", str(data))  # fast-reid's loader reads the variable at its import
    return data
