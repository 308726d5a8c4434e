"""`clip3d make-csv`: each layout on a miniature; fast-reid's own classes say who is on Market-1501's pictures."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.data.check import check_dataset
from fastreid_clip3d.data.datasets import build_dataset
from fastreid_clip3d.data.datasets.listing import DatasetNotFound, DatasetProblem
from fastreid_clip3d.data.folder_layouts import read_folder
from fastreid_clip3d.data.make_csv import make_table, write_table
from fastreid_clip3d.errors import ClearError
from tests.data.miniatures import put_images, put_strays

MARKET = {
    "bounding_box_train": ("0002_c1s1_000451_03.jpg", "0002_c2s1_000452_01.jpg", "0007_c6s3_000001_00.jpg"),
    "query": ("0001_c1s1_001051_00.jpg", "1501_c3s1_001051_00.jpg"),
    "bounding_box_test": (
        "0000_c1s1_000151_01.jpg",
        "-1_c1s1_000401_03.jpg",
        "0001_c2s1_001976_01.jpg",
        "1501_c1s1_001051_00.jpg",
    ),
}
DUKE = {
    "bounding_box_train": ("0005_c2_f0046985.jpg", "0005_c8_f0046986.jpg"),
    "query": ("0006_c1_f0000001.jpg", "0011_c2_f0000002.jpg"),
    "bounding_box_test": ("0006_c7_f0000003.jpg", "0011_c1_f0000004.jpg", "7139_c2_f0000005.jpg"),
}


def put_splits(root: Path, splits: dict[str, tuple[str, ...]]) -> Path:
    for folder, names in splits.items():
        put_images(root / folder, *names)
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def made(folder: Path, *words: str, name: str = "people.csv", code: int = 0) -> list[dict[str, str]]:
    output = folder.parent / name
    output.unlink(missing_ok=True)
    assert run_verb(["make-csv", str(folder), "--output", str(output), *words]) == code
    return rows_of(output)


@pytest.mark.parametrize(
    ("layout", "theirs", "folder", "splits"),
    [("market1501", "Market1501", "Market-1501-v15.09.15", MARKET), ("dukemtmc", "DukeMTMC", "DukeMTMC-reID", DUKE)],
)
def test_names_are_read_as_fast_reid_reads_them(
    layout: str, theirs: str, folder: str, splits: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    base = put_splits(tmp_path / folder, splits)
    put_strays(base / "query")
    rows = made(base, "--layout", layout)
    reference = DATASET_REGISTRY.get(theirs)(root=str(tmp_path))
    for split in ("train", "query", "gallery"):
        expected = {
            (os.path.relpath(path, tmp_path), int(str(pid).split("_")[-1]), int(str(camid).split("_")[-1]) + 1)
            for path, pid, camid in getattr(reference, split)
        }
        assert expected, split
        ours = {(row["path"], int(row["pid"]), int(row["camid"])) for row in rows if row["split"] == split}
        assert ours == expected
    assert "clothes" not in rows[0]


def test_the_file_is_read_by_the_csv_dataset(tmp_path: Path) -> None:
    made(put_splits(tmp_path / "market", MARKET))
    dataset = build_dataset(str(tmp_path / "people.csv"))
    assert [record.pid for record in dataset.query] == [1, 1501]
    assert all(os.path.isfile(record.path) for record in dataset.train + dataset.query + dataset.gallery)
    assert not check_dataset(str(tmp_path / "people.csv"), progress=False)[0].problems


def test_a_person_per_folder_without_a_split(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for person in range(10):
        put_images(folder / f"person {person}", *(f"img{number}.jpg" for number in range(3)))
    rows = made(folder)
    splits = defaultdict(set)
    for row in rows:
        splits[row["pid"]].add(row["split"])
    assert Counter(map(frozenset, splits.values())) == {frozenset({"train"}): 5, frozenset({"query", "gallery"}): 5}
    queries = [row["pid"] for row in rows if row["split"] == "query"]
    assert len(queries) == len(set(queries)) == 5
    assert list(rows[0]) == ["path", "pid", "split"]
    assert rows == made(folder, "--seed", "0") != made(folder, "--seed", "1")
    share = Counter(row["split"] for row in made(folder, "--test-share", "0.2"))
    assert share == {"train": 24, "query": 2, "gallery": 4}
    (only,) = check_dataset(str(tmp_path / "people.csv"), progress=False)[0].protocols
    assert only == "nothing"


def test_every_query_has_a_match_in_another_camera(tmp_path: Path) -> None:
    """Market's names side by side, without folders of splits: one query per camera, as Market-1501 itself has."""
    folder = tmp_path / "flat"
    for person in range(1, 9):
        for camera in (1, 2, 3):
            put_images(folder, *(f"{person:04}_c{camera}s1_{frame:06}_00.jpg" for frame in range(person % 3 + 1)))
    put_images(folder, "0009_c1s1_000000_00.jpg", "0009_c1s1_000001_00.jpg", "0010_c2s1_000001_00.jpg")
    rows = made(folder, "--test-share", "0.9", "--seed", "3")
    gallery = [(row["pid"], row["camid"]) for row in rows if row["split"] == "gallery"]
    queries = [(row["pid"], row["camid"]) for row in rows if row["split"] == "query"]
    assert queries and len(queries) == len(set(queries))
    for pid, camera in queries:
        assert any(other == pid and seen_by != camera for other, seen_by in gallery), (pid, camera)
    assert not {"9", "10"} & {pid for pid, _ in queries}, "one camera: nothing to match"


def test_folders_of_splits_and_inner_folders(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for person in ("ann", "bob"):
        put_images(folder / "train" / person / "red", "1.jpg", "2.jpg")
    for person in ("cleo", "dan"):
        put_images(folder / "test" / person / "red", "1.jpg", "2.jpg")
        put_images(folder / "test" / person / "blue", "1.jpg")
    put_images(folder / "test" / "dan", "loose.jpg")
    rows = made(folder, "--inner-folders", "clothes", code=1)
    assert {row["pid"] for row in rows if row["split"] == "train"} == {"ann", "bob"}
    assert [row["pid"] for row in rows if row["split"] == "query"] == ["cleo", "dan"]
    assert {(row["pid"], row["clothes"]) for row in rows if row["split"] != "train"} == {
        (person, clothes) for person in ("cleo", "dan") for clothes in ("red", "blue")
    }
    rows = made(folder, "--inner-folders", "camera", name="cameras.csv", code=1)
    assert {row["camid"] for row in rows} == {"red", "blue"}
    (folder / "test" / "dan" / "loose.jpg").unlink()
    with pytest.raises(DatasetProblem, match="no picture fits the layout person-folders.*--inner-folders"):
        read_folder(folder)


def test_a_trackers_folders(tmp_path: Path) -> None:
    folder = tmp_path / "tracks"
    for camera in ("door", "hall"):
        for track in (1, 2):
            put_images(folder / camera / str(track), "frame_2.jpg", "frame_10.jpg", "cover.jpg")
    content = read_folder(folder)
    assert (content.layout, [picture.path for picture in content.pictures][:2]) == (
        "tracker",
        ["door/1/frame_2.jpg", "door/1/frame_10.jpg"],
    )
    assert {(picture.person, picture.camera) for picture in content.pictures} == {
        ("door_1", "door"), ("door_2", "door"), ("hall_1", "hall"), ("hall_2", "hall"),
    }  # fmt: skip
    assert len(content.misfits) == 4 and all(path.endswith("cover.jpg") for path in content.misfits)
    flat = tmp_path / "flat"
    put_images(flat / "7", "000001.jpg", "000002.jpg")
    put_images(flat / "8", "000001.jpg", "000002.jpg")
    (flat / "crops.csv").write_text("file,track\n")
    content = read_folder(flat)
    assert content.layout == "tracker" and "crops.csv" in content.why
    assert {(picture.person, picture.camera) for picture in content.pictures} == {("7", ""), ("8", "")}


def test_no_file_is_left_out_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = put_splits(tmp_path / "market", MARKET)
    put_images(base / "gt_bbox", "0001_c1s1_001051_00.jpg")
    put_images(base / "query", "holiday.jpg")
    put_strays(base / "query")
    report = tmp_path / "report.json"
    made(base, "--json", str(report), code=1)
    printed = capsys.readouterr().out
    for name in ("holiday.jpg", "gt_bbox/0001_c1s1_001051_00.jpg", "-1_c1s1_000401_03.jpg", "Thumbs.db", ".DS_Store"):
        assert name in printed, name
    written = json.loads(report.read_text())
    on_disk = {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()}
    left_out = [path for paths in written["left_out"].values() for path in paths]
    in_csv = [row["path"].removeprefix("market/") for row in rows_of(tmp_path / "people.csv")]
    assert sorted(left_out + in_csv) == sorted(on_disk)
    assert "Layout market1501: " in printed and "names look like 1501_c3s1_001051_00.jpg" in printed


def test_ten_rows_are_shown_and_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    for person in range(30):
        put_images(folder / f"p{person}", "a.jpg", "b.jpg")
    output = tmp_path / "people.csv"
    assert run_verb(["make-csv", str(folder), "--output", str(output), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert not output.exists() and "10 of 60 rows" in printed
    assert sum(line.startswith("| photos/p") for line in printed.splitlines()) == 10


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.jpg", "b.jpg"), "cannot be guessed.*side by side"),
        (("notes.txt",), "has no images"),
        (("ann/a.jpg", "ann/b.jpg"), "one person"),
        (("ann/a.jpg", "ben/b.jpg"), "one picture only"),
    ],
)
def test_folders_without_a_dataset_are_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    put_images(tmp_path / "photos", *names)
    with pytest.raises(DatasetProblem, match=message):
        run_verb(["make-csv", str(tmp_path / "photos"), "--output", str(tmp_path / "people.csv")])
    assert not (tmp_path / "people.csv").exists()


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    put_images(tmp_path / "photos", "ann/a.jpg", "ann/b.jpg", "ben/a.jpg", "ben/b.jpg")
    (tmp_path / "people.csv").write_text("precious")
    with pytest.raises(ClearError, match="is there already"):
        run_verb(["make-csv", str(tmp_path / "photos"), "--output", str(tmp_path / "people.csv")])
    assert (tmp_path / "people.csv").read_text() == "precious"
    with pytest.raises(DatasetNotFound, match="nowhere"):
        read_folder(tmp_path / "nowhere")
    content = read_folder(tmp_path / "photos")
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ClearError, match="--test-share"):
            make_table(content, tmp_path / "photos", tmp_path / "people.csv", 0, share)


def test_odd_names_survive_the_way_through_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for person in ('an"n', " ben, jr", "çleo"):
        put_images(folder / person, " 1,a.jpg", "2.jpg")
    output = folder / "people.csv"
    write_table(make_table(read_folder(folder), folder, output, 0, 0.5), output)
    dataset = build_dataset(str(output))
    found = [record.path for record in dataset.train + dataset.query + dataset.gallery]
    assert sorted(os.path.realpath(path) for path in found) == sorted(map(str, folder.rglob("*.jpg")))
