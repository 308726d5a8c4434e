from __future__ import annotations

from pathlib import Path

import pytest

from fastreid_clip3d.common.dataset_root import below_dataset_root, dataset_root


def test_the_variable_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTREID_DATASETS", raising=False)
    assert dataset_root() == "datasets" and below_dataset_root("LTCC_ReID") == Path("datasets/LTCC_ReID")
    monkeypatch.setenv("FASTREID_DATASETS", "/data/people")
    assert dataset_root() == "/data/people" and below_dataset_root("SyntheticBodies") == Path(
        "/data/people/SyntheticBodies"
    )
    assert below_dataset_root("/other/set") == Path("/other/set")
