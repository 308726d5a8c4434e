"""One folder of small datasets for all tests of training; they only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.tiny_run import write_datasets


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 8 people in 2 outfits, 6 synthetic bodies, a tiny teacher."""
    return write_datasets(tmp_path_factory.mktemp("datasets"))
