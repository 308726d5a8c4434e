"""Each parser on a miniature of its layout, expectations written down from the documented names."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastreid_clip3d.data.datasets import (
    LTCC,
    ClothesDataset,
    DatasetNotFound,
    DatasetProblem,
    build_dataset,
    dataset_names,
    register_csv_dataset,
)
from fastreid_clip3d.data.datasets.base import SPLITS
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import removed_mask
from tests.data import miniatures

WRITERS = {
    "CelebReID": miniatures.celeb,
    "CelebReIDLight": lambda root: miniatures.celeb(root, "Celeb-reID-light"),
    "CelebReIDBlur": lambda root: miniatures.celeb(root, "Celeb-reID-blur"),
    "CelebReIDLightBlur": lambda root: miniatures.celeb(root, "Celeb-reID-light-blur"),
    "LTCC": miniatures.ltcc,
    "PRCC": miniatures.prcc,
    "CCVID": miniatures.ccvid,
    "DeepChange": miniatures.deepchange,
    "VCClothes": miniatures.vc_clothes,
    "LaST": miniatures.last,
    "CCDA": lambda root: miniatures.celeb(root, "CCDA"),
    "CSVDataset": lambda root: miniatures.csv(root / "dataset.csv"),
}


@pytest.fixture(autouse=True)
def warnings_reach_caplog(monkeypatch: pytest.MonkeyPatch):
    """fast-reid's setup_logger, where another test called it, keeps messages from the root logger."""
    monkeypatch.setattr(logging.getLogger("fastreid_clip3d"), "propagate", True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder whose own name matches Celeb-reID's and LTCC's file patterns."""
    path = tmp_path / "77_8_c9_1.jpg"
    path.mkdir()
    return path


def build(name: str, root: Path) -> ClothesDataset:
    WRITERS[name](root)
    return build_dataset(name, root=str(root))


def rows(records: list, root: Path) -> list[tuple]:
    return [(os.path.basename(r.path), r.pid, r.camid, r.clothes_id) for r in records]


# -- one parser each -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CelebReID", "CelebReIDLight", "CelebReIDBlur", "CelebReIDLightBlur"])
def test_celeb_reads_the_first_digit_of_the_index_as_camera(name: str, root: Path):
    dataset = build(name, root)
    prefix = dataset.dataset_name
    assert rows(dataset.train, root) == [
        ("10_2_0.jpg", f"{prefix}_10", f"{prefix}_2", -1),
        ("1_12_0.jpg", f"{prefix}_1", f"{prefix}_1", -1),
        ("1_3_1.JPG", f"{prefix}_1", f"{prefix}_3", -1),
        ("2_1_0.jpg", f"{prefix}_2", f"{prefix}_1", -1),
    ]
    assert rows(dataset.query, root) == [("1_15_0.jpg", 1, 1, -1), ("3_1_0.jpg", 3, 1, -1), ("7_2_0.jpg", 7, 2, -1)]
    assert rows(dataset.gallery, root) == [
        ("1_1_0.jpg", 1, 1, -1), ("3_12_0.jpg", 3, 1, -1), ("3_2_0.jpeg", 3, 2, -1), ("9_1_0.jpg", 9, 1, -1),
    ]  # fmt: skip
    assert [(p.name, p.rule) for p in dataset.protocols] == [
        ("general", "general"), ("general-each-image-a-camera", "nothing"),
    ]  # fmt: skip
    assert [os.path.basename(path) for path in dataset.notes["train"].junk] == ["-1_4_0.jpg"]


def test_two_datasets_do_not_share_training_ids():
    assert len({_class_of(name).dataset_name for name in WRITERS}) == len(WRITERS)


def _class_of(name: str):
    from fastreid_clip3d.data.datasets.base import registered_datasets

    found = registered_datasets()[name]
    return found if issubclass(found, ClothesDataset) else None


def test_ltcc(root: Path):
    dataset = build("LTCC", root)
    assert rows(dataset.train, root) == [
        ("000_1_c1_000002.png", "ltcc_0", "ltcc_0", 0),
        ("004_1_c2_000001.png", "ltcc_4", "ltcc_1", 1),
        ("004_2_c11_015859.png", "ltcc_4", "ltcc_10", 2),
    ]
    # outfits in order of "person_outfit": 12_1, 3_1, 3_2
    assert rows(dataset.query, root) == [("003_1_c1_000010.png", 3, 0, 1), ("012_1_c3_000011.png", 12, 2, 0)]
    assert rows(dataset.gallery, root) == [
        ("003_1_c1_000021.png", 3, 0, 1), ("003_2_c12_000020.PNG", 3, 11, 2), ("012_1_c4_000022.png", 12, 3, 0),
    ]  # fmt: skip
    assert [(p.name, p.rule, p.pids) for p in dataset.protocols] == [
        ("CC", "CC", None), ("general", "general", None), ("CC-change-ids", "CC", frozenset({3})),
    ]  # fmt: skip


def test_ltcc_without_or_with_a_broken_list_of_changers(root: Path, caplog: pytest.LogCaptureFixture):
    list_path = miniatures.ltcc(root) / "info" / "cloth-change_id_test.txt"
    list_path.write_text("3\nthree\n")
    with pytest.raises(DatasetProblem, match=r"line 2: 'three'"):
        build_dataset("LTCC", str(root)).protocols
    list_path.unlink()
    assert [p.name for p in build_dataset("LTCC", str(root)).protocols] == ["CC", "general"]
    assert "cloth-change_id_test.txt is not there" in caplog.text


def test_prcc(root: Path):
    dataset = build("PRCC", root)
    # outfits: 2_A, 5_A, 5_C
    assert rows(dataset.train, root) == [
        ("B_cropped_rgb1.jpg", "prcc_2", "prcc_1", 0),
        ("A_cropped_rgb1.jpg", "prcc_5", "prcc_0", 1),
        ("C_cropped_rgb9.jpg", "prcc_5", "prcc_2", 2),
    ]
    # outfits: 70_A, 70_C, 74_A, 80_C
    assert rows(dataset.query, root) == [
        ("cropped_rgb2.JPG", 70, 1, 0), ("cropped_rgb3.jpg", 70, 2, 1), ("cropped_rgb4.jpg", 80, 2, 3),
    ]  # fmt: skip
    assert rows(dataset.gallery, root) == [("cropped_rgb1.jpg", 70, 0, 0), ("cropped_rgb1.jpg", 74, 0, 2)]
    assert [(p.name, p.rule, set(p.query_cameras), set(p.gallery_cameras), p.single_shot_draws)
            for p in dataset.protocols] == [
        ("CC", "general", {2}, {0}, 0), ("SC", "general", {1}, {0}, 0),
        ("CC-single-shot", "general", {2}, {0}, 10), ("SC-single-shot", "general", {1}, {0}, 10),
    ]  # fmt: skip


def test_prcc_names_folders_and_images_it_does_not_understand(root: Path, caplog: pytest.LogCaptureFixture):
    base = miniatures.prcc(root)
    miniatures.put_images(base / "train", "new folder/A_1.jpg", "005/D_1.jpg", "-1/A_1.jpg")
    dataset = build_dataset("PRCC", str(root))
    assert len(dataset.train) == 3
    assert "'" + str(base / "train" / "new folder") in caplog.text and "D_1.jpg" in caplog.text
    assert [os.path.basename(path) for path in dataset.notes["train"].junk] == ["A_1.jpg"]


def test_ccvid_records_are_tracklets(root: Path):
    dataset = build("CCVID", root)
    base = root / "CCVID"
    (query,) = dataset.query
    assert (query.pid, query.camid, query.clothes_id) == (1, 1, 0)
    frames = tuple(str(base / "session1" / "001_01" / name) for name in ("00001.jpg", "00002.jpg", "00010.jpg"))
    assert query.frames == frames and query.path == frames[0]
    assert [(r.pid, r.camid, r.clothes_id, len(r.frames)) for r in dataset.gallery] == [(1, 13, 1, 3), (1, 2, 0, 3)]
    assert [(r.pid, r.camid, r.clothes_id) for r in dataset.train] == [
        ("ccvid_10", "ccvid_3", 0), ("ccvid_10", "ccvid_17", 1),
    ]  # fmt: skip
    assert [(p.name, p.rule, p.tracklet_pooling) for p in dataset.protocols][:2] == [
        ("general", "general", "clips"), ("CC", "CC", "clips"),
    ]  # fmt: skip


def test_ccvid_names_lines_and_tracklets_it_cannot_use(root: Path, caplog: pytest.LogCaptureFixture):
    base = miniatures.ccvid(root)
    with open(base / "train.txt", "a") as lines:
        lines.write("session1/099_01\t099\tu0\nsession1/001_01\t001\nsession1/001_01\tabc\tu0\n")
    dataset = build_dataset("CCVID", str(root))
    assert len(dataset.train) == 2
    assert dataset.notes["train"].missing == ["session1/099_01"]
    assert [line.rsplit(":", 2)[1] for line in dataset.notes["train"].unmatched] == ["4", "5"]
    assert "session1/099_01" in caplog.text and "train.txt:4" in caplog.text


def test_deepchange_takes_the_tracklet_for_the_camera(root: Path):
    dataset = build("DeepChange", root)
    # outfits: 20_20200101, 3_20191207
    assert rows(dataset.train, root) == [
        ("P20_C5_20200101_1.jpg", "deepchange_20", "deepchange_4", 0),
        ("P3_C1_20191207_000_1.jpg", "deepchange_3", "deepchange_77", 1),
    ]
    # outfits: 8_20200102, 8_20200305, 9_20200102: the same day is another outfit for another person
    assert rows(dataset.query, root) == [("P8_C2_20200102_2.jpg", 8, 12, 0)]
    assert rows(dataset.gallery, root) == [
        ("P8_C2_20200102_3.JPG", 8, 13, 0), ("P8_C3_20200305_1.jpg", 8, 5, 1), ("P9_C3_20200102_1.jpg", 9, 12, 2),
    ]  # fmt: skip
    assert [p.rule for p in dataset.protocols] == ["general"]


def test_deepchange_names_what_its_lists_and_folders_do_not_share(root: Path, caplog: pytest.LogCaptureFixture):
    base = miniatures.deepchange(root)
    miniatures.put_images(base / "train-set", "P1_C1_20200101_9.jpg")
    with open(base / "train-set-bbox.txt", "a") as lines:
        lines.write("P5_C1_20200101_7.jpg,3\nP5-odd.jpg,3\nP-1_C1_20200101_7.jpg,3\n")
    notes = (dataset := build_dataset("DeepChange", str(root))).train and dataset.notes["train"]
    assert [os.path.basename(path) for path in notes.missing] == ["P5_C1_20200101_7.jpg"]
    assert len(notes.unmatched) == 1 and "P5-odd.jpg" in notes.unmatched[0]
    assert notes.junk == ["P-1_C1_20200101_7.jpg"]
    assert str(base / "train-set" / "P1_C1_20200101_9.jpg") in notes.ignored
    assert "P5_C1_20200101_7.jpg" in caplog.text and "P5-odd.jpg" in caplog.text


def test_vc_clothes(root: Path):
    dataset = build("VCClothes", root)
    assert rows(dataset.train, root) == [
        ("0002-01-01-00.jpg", "vc-clothes_2", "vc-clothes_0", 1),
        ("0010-04-03-02.jpg", "vc-clothes_10", "vc-clothes_3", 0),
    ]  # fmt: skip
    # outfits: 1_1, 1_2, 5_1: outfit 01 of another person is another outfit
    assert rows(dataset.query, root) == [("0001-02-01-00.jpg", 1, 1, 0), ("0001-03-01-00.jpg", 1, 2, 0)]
    assert rows(dataset.gallery, root) == [
        ("0001-03-01-05.jpg", 1, 2, 0), ("0001-04-02-00.jpg", 1, 3, 1), ("0005-01-01-00.jpg", 5, 0, 2),
    ]  # fmt: skip
    cameras = {p.name: (p.rule, p.query_cameras, p.gallery_cameras) for p in dataset.protocols}
    assert cameras == {
        "general": ("general", None, None),
        "SC-cameras-2-3": ("general", {1, 2}, {1, 2}),
        "CC-cameras-3-4": ("general", {2, 3}, {2, 3}),
        "CC-all-cameras": ("CC", None, None),
    }


def test_last_gives_each_test_image_a_camera(root: Path):
    dataset = build("LaST", root)
    # outfits: 1_5, 3_0, 3_1
    assert rows(dataset.train, root) == [
        ("000001_film_01_5.jpg", "last_1", "last_0", 0),
        ("000003_film_01_1.jpg", "last_3", "last_0", 2),
        ("000003_film_02_0.jpg", "last_3", "last_0", 1),
    ]
    test = dataset.query + dataset.gallery
    assert [(r.pid, r.clothes_id) for r in test] == [(2, -1), (2, -1), (7, -1)]
    assert len({r.camid for r in test}) == 3 and all(isinstance(r.camid, int) for r in test)


def test_ccda_is_for_testing_only(root: Path):
    dataset = build("CCDA", root)
    assert len(dataset.query) == 3 and len(dataset.gallery) == 4
    assert [p.name for p in dataset.protocols] == ["general", "general-each-image-a-camera"]
    with pytest.raises(DatasetProblem, match="DATASETS.TESTS only"):
        dataset.train


def test_ccda_as_csv(root: Path):
    (root / "CCDA").mkdir()
    miniatures.csv(root / "CCDA" / "dataset.csv")
    dataset = build_dataset("CCDA", str(root))
    assert rows(dataset.query, root) == [("b.jpg", 4, -1, 1)]
    assert [p.name for p in dataset.protocols] == ["general", "CC"]  # nobody is seen twice in the same clothes


# -- CSV -------------------------------------------------------------------------------------------------------------


def test_csv(root: Path):
    dataset = build("CSVDataset", root)
    assert rows(dataset.train, root) == [("a.jpg", "csv_4", "csv_1", 0)]
    # camera -1 is a camera like any other; outfits of the test: 4_blue, 4_red, 6_blue
    assert rows(dataset.query, root) == [("b.jpg", 4, -1, 1)]
    assert rows(dataset.gallery, root) == [("c.JPG", 4, 2, 0), ("d.jpg", 6, 2, 2)]
    assert [p.name for p in dataset.protocols] == ["general", "CC"]  # nobody is seen twice in the same clothes


def test_csv_with_names_for_ids_and_no_clothes(root: Path):
    text = "\ufeffsplit, path ,pid,camid\nquery, images/a.jpg ,ann,hall\n"
    text += "gallery,images/b.jpg,ann,door\ngallery,images/c.JPG,7,door\n"
    miniatures.csv(root / "dataset.csv", text)
    dataset = build_dataset("CSVDataset", str(root))
    assert rows(dataset.query, root) == [("a.jpg", 1, 1, -1)]
    assert rows(dataset.gallery, root) == [("b.jpg", 1, 0, -1), ("c.JPG", 0, 0, -1)]
    assert [p.name for p in dataset.protocols] == ["general"]
    with pytest.raises(DatasetProblem, match="test set"):
        dataset.train


@pytest.mark.parametrize("first", ["98765432109876543210", "00000000000000000012", "9223372036854775808"])
def test_csv_ids_may_be_digits_of_any_length(first: str, root: Path):
    text = f"path,pid,camid,split\nimages/a.jpg,{first},1700000000000000000000,query\n"
    text += f"images/b.jpg,{first},5,gallery\nimages/c.JPG,12,{first},gallery\nimages/d.jpg,{first},1,train\n"
    text += f"images/d.jpg,-{first},1,gallery\n"
    miniatures.csv(root / "dataset.csv", text)
    dataset = build_dataset("CSVDataset", str(root))
    (query,), (same, other) = dataset.query, dataset.gallery
    assert query.pid == same.pid != other.pid and len({query.camid, same.camid, other.camid}) == 3
    assert torch.tensor([query.pid, other.pid, query.camid, other.camid]).dtype == torch.int64
    assert dataset.train[0].pid == f"csv_{first}" and len(dataset.notes["gallery"].junk) == 1


def test_file_names_with_ids_of_any_length(root: Path):
    person = "98765432109876543210"
    miniatures.put_images(root / "Celeb-reID" / "query", f"{person}_1_0.jpg")
    miniatures.put_images(root / "Celeb-reID" / "gallery", f"{person}_2_0.jpg", "3_1_0.jpg")
    dataset = build_dataset("CelebReID", str(root))
    assert [record.pid for record in dataset.query + dataset.gallery] == [1, 0, 1]  # the order of the text


def test_csv_without_cameras_is_scored_by_the_protocol_that_removes_nothing(
    root: Path, caplog: pytest.LogCaptureFixture
):
    text = "path,pid,clothes,split\nimages/a.jpg,1,red,query\nimages/b.jpg,1,red,gallery\n"
    miniatures.csv(root / "dataset.csv", text)
    dataset = build_dataset("CSVDataset", str(root))
    assert [(p.name, p.rule) for p in dataset.protocols] == [("nothing", "nothing"), ("SC", "SC")]
    dataset.show_test()
    assert "no column camid" in caplog.text and "protocol general" in caplog.text
    assert "Protocol nothing takes its place" in caplog.text and "no query has a match by protocol CC," in caplog.text


@pytest.mark.parametrize(
    ("header", "cells", "protocols", "says"),
    [
        ("camid,clothes", "door,red hall,red", ["general", "SC"], ["no query has a match by protocol CC,"]),
        ("camid,clothes", "door,red hall,blue", ["general", "CC"], ["no query has a match by protocol SC,"]),
        ("camid", "door hall", ["general"], ["does not name the clothes of 2 of 2 test images: protocols CC and SC"]),
        ("camid,clothes", "door,red hall,", ["general"], ["clothes of 1 of 2 test images (the first is line 3)"]),
        ("camid,clothes", "door,red door,red", ["nothing", "SC"], ["names one camera only", "protocol CC,"]),
        ("clothes", "red blue", ["nothing", "CC"], ["has no column camid", "protocol SC,"]),
        ("clothes", "red ", ["nothing"], ["has no column camid", "clothes of 1 of 2"]),
    ],
)
def test_csv_has_the_protocols_that_make_sense_and_says_which_do_not(
    header: str, cells: str, protocols: list[str], says: list[str], root: Path
):
    query, gallery = cells.split(" ")
    text = f"path,pid,{header},split\nimages/a.jpg,1,{query},query\nimages/b.jpg,1,{gallery},gallery\n"
    miniatures.csv(root / "dataset.csv", text)
    dataset = build_dataset("CSVDataset", str(root))
    assert [protocol.name for protocol in dataset.protocols] == protocols
    hints = dataset.hints()
    assert len(hints) == len(says)
    for hint, words in zip(hints, says):
        assert words in hint


@pytest.mark.parametrize("camera", ["", "7,"])
def test_without_cameras_clothes_alone_decide_what_is_removed(camera: str, root: Path):
    """One camera in the file is as none: general would remove every match."""
    text = f"path,pid,{camera and 'camid,'}clothes,split\n"
    for name, person, clothes, split in (
        ("a.jpg", 1, "red", "query"), ("b.jpg", 1, "red", "gallery"), ("c.JPG", 1, "blue", "gallery"),
        ("d.jpg", 2, "red", "gallery"),
    ):  # fmt: skip
        text += f"images/{name},{person},{camera}{clothes},{split}\n"
    miniatures.csv(root / "dataset.csv", text)
    dataset = build_dataset("CSVDataset", str(root))
    (query,) = dataset.query
    matches = {}
    for protocol in dataset.protocols:
        pids, camids, clothes = np.array([(r.pid, r.camid, r.clothes_id) for r in [query, *dataset.gallery]]).T
        kept = ~removed_mask(
            protocol.rule, pids[:1], camids[:1], pids[1:], camids[1:], clothes[:1], clothes[1:]
        )[0]  # fmt: skip
        matches[protocol.name] = [os.path.basename(r.path) for r, k in zip(dataset.gallery, kept) if k and r.pid == 1]
    assert matches == {"nothing": ["b.jpg", "c.JPG"], "CC": ["c.JPG"], "SC": ["b.jpg"]}


def test_csv_junk_and_missing_images_are_noted(root: Path, caplog: pytest.LogCaptureFixture):
    miniatures.csv(
        root / "dataset.csv",
        "path,pid,camid,split\nimages/a.jpg,-1,0,train\nimages/b.jpg,1,0,train\nnone.jpg,1,0,train\n",
    )
    dataset = build_dataset("CSVDataset", str(root))
    assert len(dataset.train) == 1
    assert dataset.notes["train"].junk == [str(root / "images/a.jpg")]
    assert dataset.notes["train"].missing == [str(root / "none.jpg")] and "none.jpg" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "none"),
        ("path,pid,camid,split\n", "no line below"),
        ("path,pid,camid,colour,split\na,1,1,red,train\n", "'colour'"),
        ("path,camid,split\na,1,train\n", "must name path, pid, split"),
        ("path,pid,camid,split\na,1,,train\n", "line 2: camid must not be empty"),
        ("path,path,pid,camid,split\na,a,1,1,train\n", "twice"),
        ("path,pid,camid,split\na,,1,train\n", "line 2: pid must not be empty"),
        ("path,pid,camid,split\n\na,1,1,test\n", "line 3: split is 'test'"),
        ("path,pid,camid,split\na,b.jpg,1,1,train\n", "line 2: more cells"),
        (b"path,pid,camid,split\n\xff\xfe,1,1,train\n", "UTF-8"),
        ('path,pid,split,clothes\na,1,train,"red\nb,1,train,red\n', "row after the first line .* a quote not closed"),
        ("path,pid,split\na,1,train\n" + 200_000 * "x" + ",1,train\n", "after line 2 cannot be read .field larger"),
    ],
)
def test_csv_says_what_is_wrong_with_a_file(text: str | bytes, message: str, root: Path):
    path = root / "dataset.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DatasetProblem, match=message) as error:
        build_dataset("CSVDataset", str(root)).query
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("lines", "split", "message"),
    [
        (
            "images/gone.jpg,1,train\nimages/away.jpg,2,train\n",
            "train",
            r"dataset.csv names 2 train images, and none of these files exists: '.*gone.jpg', .* folder, {root}\.$",
        ),
        ("images/a.jpg,1,train\n", "query", "dataset.csv names no query image. Write query into the column split"),
        ("images/a.jpg,-1,train\n", "train", "names no train image but 1 with a negative pid, which are left out"),
    ],
)
def test_a_csv_without_a_usable_image_is_named_with_its_own_folder(lines: str, split: str, message: str, root: Path):
    miniatures.csv(root / "dataset.csv", "path,pid,split\n" + lines)
    with pytest.raises(DatasetProblem, match=message.format(root=root)) as error:
        getattr(build_dataset("CSVDataset", str(root)), split)
    assert "FASTREID_CSV" not in str(error.value)


def test_a_list_that_is_a_folder_is_named(root: Path):
    (root / "dataset.csv").mkdir()
    with pytest.raises(DatasetProblem, match=r"dataset.csv cannot be read: Is a directory"):
        build_dataset("CSVDataset", str(root)).query
    lines = miniatures.ccvid(root) / "train.txt"
    lines.unlink()
    lines.mkdir()
    with pytest.raises(DatasetProblem, match=r"train.txt cannot be read: Is a directory"):
        build_dataset("CCVID", str(root)).train


def test_links_that_lead_nowhere_and_other_kinds_of_images_are_named(root: Path, caplog: pytest.LogCaptureFixture):
    folder = miniatures.ltcc(root) / "train"
    known = len(build_dataset("LTCC", str(root)).train)
    (folder / "009_1_c1_1.png").symlink_to(root / "gone.png")
    (folder / "009_1_c1_2.png").symlink_to("009_1_c1_2.png")
    (folder / "009_1_c1_3.tif").touch()
    (folder / "Thumbs.db").touch()
    dataset = build_dataset("LTCC", str(root))
    assert len(dataset.train) == known
    assert [os.path.basename(path) for path in dataset.notes["train"].missing] == ["009_1_c1_1.png", "009_1_c1_2.png"]
    assert [os.path.basename(path) for path in dataset.notes["train"].unmatched] == ["009_1_c1_3.tif"]
    assert "009_1_c1_1.png" in caplog.text and "009_1_c1_3.tif" in caplog.text and "Thumbs" not in caplog.text


def test_a_split_that_is_a_file_is_named(root: Path):
    folder = miniatures.ltcc(root) / "query"
    shutil.rmtree(folder)
    folder.touch()
    with pytest.raises(DatasetProblem, match="query cannot be listed: Not a directory"):
        build_dataset("LTCC", str(root)).query


def test_numbers_that_int_cannot_read_are_names_like_any_other(root: Path):
    squared = "\u00b2"  # isdigit says yes
    miniatures.put_images(miniatures.prcc(root) / "train", f"{squared}/A_1.jpg")
    dataset = build_dataset("PRCC", str(root))
    assert len(dataset.train) == 3 and squared in dataset.notes["train"].unmatched[0]
    list_of_changers = miniatures.ltcc(root) / "info" / "cloth-change_id_test.txt"
    list_of_changers.write_text(f"3\n{squared}\n", encoding="utf-8")
    with pytest.raises(DatasetProblem, match="line 2"):
        build_dataset("LTCC", str(root)).protocols
    with open(miniatures.ccvid(root) / "train.txt", "a") as lines:
        lines.write(f"session1/001_01 {5000 * '9'} u0\nsession1/001_{5000 * '9'} 001 u0\n")
    dataset = build_dataset("CCVID", str(root))
    assert dataset.train and len(dataset.notes["train"].unmatched) == 2


def test_csv_from_the_environment_and_under_a_name(root: Path, monkeypatch: pytest.MonkeyPatch):
    path = miniatures.csv(root / "other.csv")
    monkeypatch.setenv("FASTREID_CSV", str(path))
    assert len(build_dataset("CSVDataset").query) == 1
    monkeypatch.delenv("FASTREID_CSV")
    assert len(build_dataset(str(path)).query) == 1
    register_csv_dataset("MyStreet", str(path))
    register_csv_dataset("MyStreet", str(path))
    dataset = build_dataset("MyStreet", str(root))
    assert dataset.train[0].pid == "MyStreet_4"
    with pytest.raises(DatasetProblem, match="exists already"):
        register_csv_dataset("LTCC", str(path))
    with pytest.raises(DatasetNotFound, match="nowhere.csv"):
        register_csv_dataset("Elsewhere", str(root / "nowhere.csv"))


# -- what all share --------------------------------------------------------------------------------------------------


def test_every_dataset_has_a_miniature():
    ours = {name for name in dataset_names() if _class_of(name)}
    assert set(WRITERS) <= ours
    assert ours - set(WRITERS) - {"MyStreet"} == {name for name in ours if "Synth" in name}


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_missing_folder_is_named_with_the_source_of_the_data(name: str, root: Path):
    with pytest.raises(DatasetNotFound) as error:
        build_dataset(name, str(root))
    assert isinstance(error.value, RuntimeError) and isinstance(error.value, ClearError)
    assert str(root) in str(error.value) and "FASTREID_DATASETS" in str(error.value)
    assert "The data: " in str(error.value) and "Expected: " in str(error.value)


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"CSVDataset"}))
def test_a_missing_split_is_reported_when_it_is_read(name: str, root: Path):
    dataset = build(name, root)
    for folder in root.glob("*/*"):
        if "query" in folder.name or folder.name == "rgb":
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    shutil.rmtree(root / "last" / "test", ignore_errors=True)
    with pytest.raises(DatasetNotFound, match=str(root)):
        dataset.query


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"CSVDataset", "CCVID"}))
def test_empty_split_is_an_error_that_names_the_folder(name: str, root: Path):
    dataset = build(name, root)
    for image in root.rglob("*"):
        if image.suffix.lower() in miniatures.IMAGE_ENDINGS and image.is_file():
            image.unlink()
    with pytest.raises(DatasetProblem, match=f"{name}: no query image was found below {root}"):
        dataset.query


def test_names_that_nothing_matches_are_listed_in_the_error(root: Path):
    miniatures.put_images(root / "LTCC_ReID" / "query", *(f"photo{number}.png" for number in range(9)))
    miniatures.put_images(root / "LTCC_ReID" / "test", "photo.png")
    with pytest.raises(DatasetProblem, match=r"9 names were not understood: .*photo0\.png.* and 4 more"):
        build_dataset("LTCC", str(root)).query


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_order_does_not_depend_on_the_file_system(name: str, root: Path, monkeypatch: pytest.MonkeyPatch):
    first = build(name, root)
    splits = [split for split in SPLITS if split != "train" or first.has_train]
    expected = {split: [vars(record) for record in getattr(first, split)] for split in splits}
    scandir = os.scandir

    class Backwards:
        def __init__(self, folder):
            self.entries = scandir(folder)

        def __enter__(self):
            return iter(sorted(self.entries, key=lambda entry: entry.name, reverse=True))

        def __exit__(self, *_):
            self.entries.close()

    monkeypatch.setattr("fastreid_clip3d.data.datasets.listing.os.scandir", Backwards)
    again = build_dataset(name, str(root))
    assert {split: [vars(record) for record in getattr(again, split)] for split in splits} == expected


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"CCDA"}))
def test_every_image_exists_and_an_outfit_belongs_to_one_person(name: str, root: Path):
    dataset = build(name, root)
    records = dataset.train + dataset.query + dataset.gallery
    assert dataset.train and dataset.query and dataset.gallery
    assert all(os.path.isfile(path) for record in records for path in (record.path, *record.frames))
    assert all(isinstance(r.pid, str) and isinstance(r.camid, str) for r in dataset.train)
    assert all(isinstance(r.pid, int) and isinstance(r.camid, int) for r in dataset.query + dataset.gallery)
    for split in (dataset.train, dataset.query + dataset.gallery):
        owners = {(r.clothes_id, r.pid) for r in split if r.clothes_id >= 0}
        assert len(owners) == len({clothes for clothes, _ in owners}), "an outfit belongs to one person"


@pytest.mark.parametrize("name", ["LTCC", "CCVID", "LaST"])
def test_combine_all_keeps_clothes_and_frames(name: str, root: Path):
    separate = build(name, root)
    combined = build_dataset(name, str(root), combineall=True)
    assert len(combined.train) == len(separate.train) + len(separate.query) + len(separate.gallery)
    first_test = combined.train[len(separate.train)]
    assert first_test.pid == f"{separate.dataset_name}_test_{separate.query[0].pid}"
    assert first_test.frames == separate.query[0].frames
    assert combined.train[: len(separate.train)] == separate.train
    outfits = {(r.pid, r.clothes_id) for r in combined.train if r.clothes_id >= 0}
    assert len(outfits) == len({clothes for _, clothes in outfits})
    train_outfits = {r.clothes_id for r in separate.train}
    assert not train_outfits & {r.clothes_id for r in combined.train[len(separate.train) :] if r.clothes_id >= 0}


def test_counts_stand_beside_the_official_ones_and_differences_are_warned_of(
    root: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger="fastreid_clip3d")
    dataset = build("LTCC", root)
    found = dataset.counts()
    assert found["train"] == (2, 3, 3, 3) and found["query"] == (2, 2, 2, 2) and found["gallery"] == (2, 3, 3, 3)
    assert found["test"] == (2, 5, 4, 3)
    assert found["all"][:2] == (4, 8)
    dataset.show_train()
    dataset.show_test()
    assert "9,576" in caplog.text and "| train " in caplog.text
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert any("train: 3 items, officially 9,576" in message for message in warnings)
    assert any("query: 2 items, officially 493" in message for message in warnings)


def test_whole_copy_is_not_warned_of(root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    dataset = build("VCClothes", root)
    counts = {"train": (2, 2), "query": (1, 2), "gallery": (2, 3), "test": (2, None), "all": (4, 7)}
    monkeypatch.setattr(type(dataset), "official_counts", counts)
    dataset.show_train()
    dataset.show_test()
    assert dataset.count_differences(dataset.counts()) == [] and not caplog.records


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_official_counts_fit_together(name: str):
    official = _class_of(name).official_counts
    assert set(official) <= {*SPLITS, "test", "all"}
    if "all" in official:
        items = [official[split][1] for split in SPLITS]
        assert sum(items) == official["all"][1]
        assert official["train"][0] + official["test"][0] == official["all"][0]


def test_copy_without_train_can_be_evaluated(root: Path):
    shutil.rmtree(miniatures.ltcc(root) / "train")
    dataset = build_dataset("LTCC", str(root))
    assert len(dataset.query) == 2
    with pytest.raises(DatasetNotFound, match="train"):
        dataset.train


def test_mode_chooses_the_split_as_in_fast_reid(root: Path):
    miniatures.ltcc(root)
    sizes = {mode: len(build_dataset("LTCC", str(root), mode=mode)) for mode in SPLITS}
    assert sizes == {"train": 3, "query": 2, "gallery": 3}
    with pytest.raises(ValueError, match="mode"):
        build_dataset("LTCC", str(root), mode="test")


def test_root_comes_from_fast_reids_variable(root: Path, monkeypatch: pytest.MonkeyPatch):
    miniatures.ltcc(root)
    monkeypatch.setenv("FASTREID_DATASETS", str(root))
    assert len(build_dataset("LTCC").query) == 2
    assert len(LTCC().query) == 2


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(DatasetProblem, match="Did you mean CelebReID.*Known: .*Market1501"):
        build_dataset("celeb-reid")
    with pytest.raises(DatasetProblem, match="No dataset is called 'zebra'. Known: .*Market1501"):
        build_dataset("zebra")


@pytest.mark.parametrize("name", ["Market1501", "MSMT17"])
@pytest.mark.filterwarnings("ignore:The current data structure is deprecated")
def test_a_missing_dataset_of_fast_reid_is_named(name: str, tmp_path: Path):
    with pytest.raises(DatasetNotFound, match=f"{name}: .*{tmp_path}"):
        build_dataset(name, str(tmp_path))


def test_fast_reids_own_dataset_is_built(tmp_path: Path):
    for split in ("bounding_box_train", "query", "bounding_box_test"):
        miniatures.put_images(tmp_path / "Market-1501-v15.09.15" / split, "0002_c1s1_000451_03.jpg")
    assert [item[1:] for item in build_dataset("Market1501", str(tmp_path)).query] == [(2, 0)]
