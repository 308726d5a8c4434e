"""Files, folders, globs, lists: each picture once, in an order a person would call right."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.pictures import list_images


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    for name in (
        "b/img10.jpg",
        "b/img2.JPG",
        "b/img1.png",
        "b/notes.md",
        "b/.hidden.jpg",
        "b/.thumbs/x.jpg",
        "b/b10/y.jpg",
        "b/b9/z.webp",
        "one.jpeg",
        "odd.dat",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*sources, **options) -> list[str]:
    return [entry.name for entry in list_images(sources, **options)]


def test_folders_in_natural_order_without_what_is_hidden(tree) -> None:
    listing = list_images(["b"])
    assert [entry.name for entry in listing] == [
        "b/img1.png",
        "b/img2.JPG",
        "b/img10.jpg",
        "b/b9/z.webp",
        "b/b10/y.jpg",
    ]
    assert listing[0].frames == (Path("b/img1.png"),) and listing.passed_over == 1


def test_sources_keep_their_order_and_nothing_comes_twice(tree) -> None:
    assert names("one.jpeg", "b/b9", "one.jpeg", str(tree / "one.jpeg"), "b/../one.jpeg") == ["one.jpeg", "b/b9/z.webp"]


def test_a_file_named_by_itself_is_taken_whatever_its_ending(tree) -> None:
    assert names("odd.dat") == ["odd.dat"]


def test_globs(tree) -> None:
    assert names("b/img*") == ["b/img1.png", "b/img2.JPG", "b/img10.jpg"]
    listing = list_images(["b/**/*.*"])
    assert [entry.name for entry in listing] == [
        "b/b9/z.webp",
        "b/b10/y.jpg",
        "b/img1.png",
        "b/img2.JPG",
        "b/img10.jpg",
    ]
    assert listing.passed_over == 1
    with pytest.raises(ClearError, match=r"b/\*.gif: no file has such a name"):
        list_images(["b/*.gif"])


def test_a_file_with_the_signs_of_a_glob_in_its_name(tree) -> None:
    (tree / "a[1].jpg").write_bytes(b"x")
    assert names("a[1].jpg") == ["a[1].jpg"]


def test_lists(tree) -> None:
    (tree / "b/list.txt").write_text("# crops\n\nimg2.JPG\nb9\ngone.jpg\n../one.jpeg\none.jpeg\n", encoding="utf-8-sig")
    found = names("b/list.txt")
    assert found == ["b/img2.JPG", "b/b9/z.webp", "b/gone.jpg", "b/../one.jpeg"]
    (tree / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ClearError, match="empty.txt: the list names no image"):
        list_images(["empty.txt"])


def test_a_list_may_hold_names_that_no_file_can_have(tree) -> None:
    prose = "Not a list of images but a page of text. " * 20
    (tree / "b/notes.txt").write_text(f"{prose}\na\0b.jpg\nimg2.JPG\n")
    assert names("b/notes.txt") == [f"b/{prose.strip()}", "b/a\0b.jpg", "b/img2.JPG"]


def test_tracklets_are_folders_that_hold_images_and_lists(tree) -> None:
    (tree / "b/list.txt").write_text("img10.jpg\nimg2.JPG\nb9\n")
    entries = {entry.name: [frame.name for frame in entry.frames] for entry in list_images(["b", "one.jpeg"], True)}
    assert entries == {
        "b": ["img1.png", "img2.JPG", "img10.jpg"],
        "b/b9": ["z.webp"],
        "b/b10": ["y.jpg"],
        "one.jpeg": ["one.jpeg"],
    }
    assert names("b/list.txt", tracklets=True) == ["b/b9", "b/list.txt"]


def test_links_that_lead_back_end(tree) -> None:
    (tree / "b/b9/back").symlink_to(tree / "b", target_is_directory=True)
    assert len(names("b")) == 5


def test_what_is_not_there_is_named(tree) -> None:
    with pytest.raises(ClearError, match="nowhere: no such file or folder"):
        list_images(["b", "nowhere"])


def test_a_list_that_is_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.txt")
    signal.alarm(20)  # ends a test that hangs
    try:
        with pytest.raises(ClearError, match="list.txt is no regular file"):
            list_images([tmp_path / "list.txt"])
    finally:
        signal.alarm(0)
