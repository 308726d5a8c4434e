"""A folder of pictures without cameras or clothes: described, trained on, and scored by what makes sense."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from fastreid_clip3d.cli import run_verb
from tests.engine.tiny_run import CONFIG, options


@pytest.mark.parametrize("inner", ["", "clothes"])
def test_people_in_folders_train_and_are_scored(
    inner: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(data))
    with open(data / "dataset.csv", newline="") as lines:
        for row in csv.DictReader(lines):
            folder = tmp_path / "photos" / f"person{row['pid']}" / (f"outfit{row['clothes']}" if inner else "")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / row["path"], folder)
    described = tmp_path / "people.csv"
    words = ["--inner-folders", inner] if inner else []
    assert run_verb(["make-csv", str(tmp_path / "photos"), "--output", str(described), *words]) == 0
    name = f"Own{inner}"  # a name stays registered until the process ends
    keys = {"DATASETS__CSV": f"(('{name}', '{described}'),)", "SOLVER__IMS_PER_BATCH": "8"}
    keys |= {"DATASETS__NAMES": f"('{name}',)", "DATASETS__TESTS": f"('{name}',)"}
    assert run_verb(["train", "--config-file", CONFIG, *options(data, tmp_path / "run", **keys)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.json").read_text().splitlines()]
    (scores,) = (line for line in lines if f"{name}/nothing/mAP" in line)
    scored = {key.split("/")[1] for key in scores if key.startswith(f"{name}/")}
    assert scored == ({"nothing", "CC", "SC"} if inner else {"nothing"})
    assert 0 < scores[f"{name}/nothing/mAP"] <= 100 and scores[f"{name}/nothing/queries_without_match"] == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "protocol general, which needs a match in another camera, is not scored" in log
    assert ("protocols CC and SC, which need the clothes of all of them, are not scored" in log) is not bool(inner)
