"""`clip3d reliance`: renders what is missing, keeps what is there, and writes the report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.synthcc import generate, plan

FOLDERS = ("SynthCC-tiny", "SynthCC-tiny-shape-only")
WORDS = ["reliance", "--model", "open_clip:embedded", "--device", "cpu", "--workers", "1"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sets with three test people in two outfits, four pictures each, and what the verb wrote."""
    root = tmp_path_factory.mktemp("reliance")
    few = {"train_people": 0, "test_people": 3, "val_people": 0, "outfits": 2, "images_per_outfit": 4}
    config = dataclasses.replace(plan.SETS["SynthCC-tiny"], **few, height=32, width=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.SETS, "SynthCC-tiny", config)
        assert (
            run_verb([*WORDS, "--root", str(root), "--output", str(root / "out"), "--json", str(root / "n.json")]) == 0
        )
    return root


@pytest.fixture
def no_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real sets, of which nothing may be rendered."""
    monkeypatch.setattr(generate, "make_shard", None)


def test_it_renders_both_sets_and_writes_the_report(rendered: Path) -> None:
    for folder in FOLDERS:
        assert len(list((rendered / folder).glob("*/*.jpg"))) == 24
    report = json.loads((rendered / "out" / "report.json").read_text())
    assert json.loads((rendered / "n.json").read_text()) == report
    assert report["model"] == "open_clip:embedded" and report["people"] == 3
    parts = report["parts"]
    assert sum(part["value"] for part in parts.values()) == pytest.approx(report["total"]["value"], abs=1e-8)
    # a query is compared with its own 6 gallery pictures one by one, and with 12 of others
    assert report["chance"] == pytest.approx(sum(1 / rank for rank in range(1, 14)) / 13)
    table = (rendered / "out" / "table.md").read_text()
    assert report["sentence"] in table
    assert f"| clothes       | {100 * parts['clothes']['value']:.2f}" in table
    assert set(report["mAP_percent"]) == {"natural", "shape-only"}
    with Image.open(rendered / "out" / "reliance.png") as chart:
        assert chart.width > 500


def test_whole_sets_are_used_as_they_are(rendered: Path, no_rendering: None, tmp_path: Path, capsys) -> None:
    words = [*WORDS, "--root", str(rendered), "--output", str(tmp_path), "--people", "2", "--json"]
    assert run_verb(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "report.json").read_text())
    assert printed["people"] == 2
    assert printed["chance"] == pytest.approx(sum(1 / rank for rank in range(1, 8)) / 7)


def test_sets_of_other_pictures_are_refused(rendered: Path, no_rendering: None, tmp_path: Path) -> None:
    for folder in FOLDERS:
        (tmp_path / folder).symlink_to(rendered / folder, target_is_directory=True)
    (tmp_path / FOLDERS[1]).unlink()
    for split in ("query", "gallery"):
        (tmp_path / FOLDERS[1] / split).mkdir(parents=True)
        for path in (rendered / FOLDERS[1] / split).iterdir():
            other = path.name.replace("_c1_", "_c9_")  # as another seed draws the cameras
            (tmp_path / FOLDERS[1] / split / other).symlink_to(path)
    with pytest.raises(ClearError, match=r"only one of SynthCCTiny and SynthCCTinyShapeOnly has \w+/\d+_o\d_c[19]_"):
        run_verb([*WORDS, "--root", str(tmp_path), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_broken_set_is_named(tmp_path: Path, no_rendering: None) -> None:
    (tmp_path / FOLDERS[0]).mkdir()
    (tmp_path / FOLDERS[0] / "meta.json").write_text("{")
    with pytest.raises(ClearError, match=r"meta.json is not valid JSON .* Remove its folder"):
        run_verb([*WORDS, "--root", str(tmp_path)])
