from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.data.check import check_dataset, queries_without_match, unreadable_images
from fastreid_clip3d.data.contact_sheet import save_contact_sheet
from fastreid_clip3d.data.datasets import DatasetNotFound
from fastreid_clip3d.data.records import Record
from fastreid_clip3d.evaluation.protocols import CC, GENERAL, SC, Protocol
from tests.data import miniatures


def noise(path: Path, **options) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_every_unreadable_image_is_found_in_one_pass(ending: str, tmp_path: Path):
    whole, cut, empty, other, gone = (
        tmp_path / f"{name}.{ending}" for name in ("whole", "cut", "empty", "other", "gone")
    )
    noise(whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])  # its header is fine
    empty.write_bytes(b"")
    other.write_bytes(b"<html>404</html>")
    with Image.open(cut) as image:
        assert image.size == (32, 64)
    found = unreadable_images([str(path) for path in (whole, cut, empty, other, gone)], workers=2, progress=False)
    assert set(found) == {str(path) for path in (cut, empty, other, gone)}
    assert found[str(empty)] == "empty file (0 bytes)" and "truncated" in found[str(cut)]


def test_report_of_a_copy_with_everything_wrong(tmp_path: Path):
    base = miniatures.celeb(tmp_path)
    (base / "query" / "3_1_0.jpg").write_bytes(b"")
    miniatures.put_images(base / "train", "photo.jpg")
    report, splits = check_dataset("CelebReID", str(tmp_path), progress=False)
    assert {split: len(records) for split, records in splits.items()} == {"train": 4, "query": 3, "gallery": 4}
    assert report.unreadable == {str(base / "query" / "3_1_0.jpg"): "empty file (0 bytes)"}
    assert report.images_read == 11
    assert report.unmatched_names == [str(base / "train" / "photo.jpg")]
    assert report.junk == [str(base / "train" / "-1_4_0.jpg")]
    assert str(base / "train" / "Thumbs.db") in report.ignored
    assert (report.query_only_ids, report.gallery_only_ids) == ([7], [9])
    # general: 1_15 loses 1_1 (same digit), 3_1 keeps 3_2, 7_2 has nobody
    general = report.protocols["general"]
    assert general.queries == 3 and general.unmatched_ids == [1, 7]
    assert [Path(path).name for path in general.unmatched_queries] == ["1_15_0.jpg", "7_2_0.jpg"]
    assert report.protocols["general-each-image-a-camera"].unmatched_ids == [7]
    problems = "\n".join(report.problems)
    assert "1 unreadable images" in problems and "photo.jpg" in problems and "officially 20,208" in problems
    json.dumps(report.as_json(), allow_nan=False)


def test_splits_that_cannot_be_read_are_reported_and_the_others_checked(tmp_path: Path):
    base = miniatures.ltcc(tmp_path)
    for image in (base / "query").iterdir():
        image.unlink()
    report, splits = check_dataset("LTCC", str(tmp_path), progress=False)
    assert set(splits) == {"train"} and report.images_read == 3
    assert len(report.broken_splits) == 1 and "no query image" in report.problems[0]
    with pytest.raises(DatasetNotFound, match="PRCC"):
        check_dataset("PRCC", str(tmp_path))


def test_listed_twice_is_named(tmp_path: Path):
    text = "path,pid,camid,split\nimages/a.jpg,1,0,query\nimages/b.jpg,1,1,gallery\nimages/./a.jpg,1,1,gallery\n"
    miniatures.csv(tmp_path / "dataset.csv", text)
    report, _ = check_dataset("CSVDataset", str(tmp_path), progress=False)
    assert report.duplicates == [f"{tmp_path / 'images' / 'a.jpg'} (1 x query, 1 x gallery)"]
    assert "1 images listed more than once" in report.problems[0]


def test_people_of_train_who_are_in_the_test_are_named(tmp_path: Path):
    text = "path,pid,camid,split\nimages/a.jpg,ann,0,train\nimages/b.jpg,bob,1,train\n"
    text += "images/c.JPG,ann,1,query\nimages/d.jpg,ann,2,gallery\n"
    miniatures.csv(tmp_path / "dataset.csv", text)
    report, _ = check_dataset("CSVDataset", str(tmp_path), progress=False)
    assert report.people_in_train_and_test == ["ann"]
    assert len(report.problems) == 1 and "1 people are in train and in test: 'ann'" in report.problems[0]
    # Celeb-reID numbers the people of train and of test from 1 each: the same number is another person.
    miniatures.celeb(tmp_path)
    assert check_dataset("CelebReID", str(tmp_path), decode=False)[0].people_in_train_and_test == []


def test_what_cannot_be_scored_without_cameras_is_named(tmp_path: Path):
    text = "path,pid,camid,split\nimages/a.jpg,1,7,query\nimages/b.jpg,1,7,gallery\n"
    miniatures.csv(tmp_path / "dataset.csv", text)
    report, _ = check_dataset("CSVDataset", str(tmp_path), progress=False)
    assert report.problems == [] and list(report.protocols) == ["nothing"]
    assert "one camera only" in report.notes[0] and "CC and SC" in report.notes[1]
    miniatures.csv(tmp_path / "dataset.csv", text.replace("b.jpg,1", "b.jpg,2"))
    (problem,) = check_dataset("CSVDataset", str(tmp_path), progress=False)[0].problems
    assert "No person of the query is in the gallery" in problem
    miniatures.csv(tmp_path / "dataset.csv", text.replace("pid,camid", "pid,clothes"))
    report, _ = check_dataset("CSVDataset", str(tmp_path), progress=False)
    assert report.problems == [] and "no column camid" in report.notes[0]


def test_every_frame_of_a_tracklet_is_decoded(tmp_path: Path):
    base = miniatures.ccvid(tmp_path)
    (base / "session3" / "001_01" / "00010.jpg").write_bytes(b"")
    report, _ = check_dataset("CCVID", str(tmp_path), progress=False)
    assert report.images_read == 15
    assert list(report.unreadable) == [str(base / "session3" / "001_01" / "00010.jpg")]


def test_fast_reids_own_dataset_is_checked(tmp_path: Path):
    folder = tmp_path / "Market-1501-v15.09.15"
    for split, camera in (("bounding_box_train", 1), ("query", 1), ("bounding_box_test", 2)):
        miniatures.put_images(folder / split, f"0002_c{camera}s1_000451_03.jpg")
    report, _ = check_dataset("Market1501", str(tmp_path), progress=False)
    assert report.problems == [] and report.counts["query"][:3] == (1, 1, 1)


QUERY = [Record("q0", 1, 0, 10), Record("q1", 1, 1, 11), Record("q2", 2, 0, 20)]
GALLERY = [Record("g0", 1, 0, 11), Record("g1", 1, 2, 10), Record("g2", 2, 0, 21)]


@pytest.mark.parametrize(
    ("protocol", "queries", "lost"),
    [
        (GENERAL, 3, ["q2"]),  # q2's only match is of its camera
        (CC, 3, ["q0", "q2"]),  # g0 is of q0's camera, g1 in its clothes
        (SC, 3, ["q2"]),
        (Protocol("x", "nothing"), 3, []),
        (Protocol("x", "general", query_cameras=frozenset({0})), 2, ["q2"]),
        (Protocol("x", "general", gallery_cameras=frozenset({0})), 3, ["q0", "q2"]),
        (Protocol("x", "nothing", pids=frozenset({2})), 1, []),
    ],
)
def test_queries_without_match(protocol: Protocol, queries: int, lost: list[str]):
    report = queries_without_match(QUERY, GALLERY, protocol)
    assert (report.queries, report.unmatched_queries) == (queries, lost)


def test_contact_sheet_shows_people_and_crosses_out_what_cannot_be_read(tmp_path: Path):
    for name, colour in (("a", (0, 0, 255)), ("b", (0, 255, 0))):
        Image.new("RGB", (4, 8), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"")
    splits = {"query": [Record(str(tmp_path / "a.png"), 1, 0)],
              "gallery": [Record(str(tmp_path / "b.png"), 1, 1, 3), Record(str(tmp_path / "c.png"), 2, 1)]}  # fmt: skip
    save_contact_sheet(splits, tmp_path / "out" / "sheet.png", people=5, images_per_person=3)
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.size == (4 + 3 * 84, 4 + 2 * 190)
        assert sheet.getpixel((44, 30)) == (0, 0, 255) and sheet.getpixel((128, 30)) == (0, 255, 0)
        assert sheet.getpixel((44, 190 + 84)) == (255, 0, 0)  # person 2's only image
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sheet.png"]


def test_tool_ends_with_1_on_problems_and_writes_what_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture):
    miniatures.celeb(tmp_path)
    miniatures.ltcc(tmp_path)
    arguments = ["CelebReID", "LTCC", "--root", str(tmp_path), "--json", str(tmp_path / "r.json")]
    assert run_verb(["check-dataset", *arguments, "--sheet", str(tmp_path / "sheet.png")]) == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["LTCC"]["counts"]["train"]["items"] == 3 and report["CelebReID"]["problems"]
    assert (tmp_path / "sheet-LTCC.png").exists() and (tmp_path / "sheet-CelebReID.png").exists()
    printed = capsys.readouterr().out
    assert (
        "PROBLEM: counts differ" in printed and "20,208" in printed and "protocol CC-change-ids: 1 queries" in printed
    )


def test_tool_ends_with_0_on_a_good_csv(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = miniatures.csv(tmp_path / "mine" / "own.csv",
                          "path,pid,camid,split\nimages/a.jpg,1,0,query\nimages/b.jpg,1,1,gallery\n")  # fmt: skip
    assert run_verb(["check-dataset", str(path), "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)[str(path)]["images_read"] == 2
    assert "no problems" in printed.err
    assert run_verb(["check-dataset", "--list"]) == 0
    assert "CelebReIDLightBlur" in capsys.readouterr().out.split()
