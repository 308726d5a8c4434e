"""Every verb checks where its result goes before it works: models and data of these commands do not exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError

COMMANDS = [
    "check-dataset LTCC --json PLACE.json",
    "check-dataset LTCC --sheet PLACE.png",
    "label none.jpg --sheet PLACE.png",
    "visualize ranking --models none --output PLACE.png",
    "visualize transport --model none --phrases tall --images none --output PLACE.png",
    "render-people --sheet PLACE.jpg",
    "render-bodies --sheet PLACE.png",
    "export --model none --output PLACE.onnx",
    "evaluate --features none.npz --json PLACE.json",
    "evaluate --features none.npz --per-query PLACE.csv",
    "search --model none --gallery GALLERY --query none.jpg --json PLACE.json",
    "search --model none --gallery GALLERY --query none.jpg --html PLACE.html",
    "search --model none --gallery GALLERY --query none.jpg --sheet PLACE.png",
    "extract GALLERY --model none --output PLACE.npz",
]
FOLDERS = ["blur-faces GALLERY PLACE", "render-people --root PLACE", "render-bodies --output PLACE"]


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    (tmp_path / "gallery").mkdir()
    Image.new("RGB", (8, 16)).save(tmp_path / "gallery" / "a.jpg")
    return tmp_path / "gallery"


def refused(command: str, gallery: Path, place: Path) -> str:
    words = command.replace("GALLERY", str(gallery)).replace("PLACE", str(place)).split()
    with pytest.raises(ClearError) as caught:
        run_verb(words)
    return str(caught.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_or_a_file_in_the_way_is_named(command: str, gallery: Path, tmp_path: Path) -> None:
    ending = command.partition("PLACE")[2]
    (tmp_path / f"folder{ending}").mkdir()
    (tmp_path / "file").write_text("")
    message = refused(command, gallery, tmp_path / "folder")
    assert f"folder{ending} is a folder; name a file" in message
    message = refused(command, gallery, tmp_path / "file" / "result")
    assert "file is no folder. Choose another place" in message


@pytest.mark.parametrize("command", FOLDERS)
def test_a_file_in_place_of_a_folder_is_named(command: str, gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file is no folder. Choose another place" in refused(command, gallery, tmp_path / "file")
