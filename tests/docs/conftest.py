"""One world for all documents."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docs.commands import documents
from tests.docs.world import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("world") / "base"
    root.mkdir()
    text = "\n".join(path.read_text(encoding="utf-8") for path in documents(REPOSITORY))
    yield make_world(root, text)
    shutil.rmtree(root.parent, ignore_errors=True)
