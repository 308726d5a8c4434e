"""The command lines over a miniature dataset, in process."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher import TeacherCache


@pytest.fixture
def celeb(tmp_path, monkeypatch) -> list[str]:
    """Celeb-reID with six training images of three persons; returns their paths."""
    root = tmp_path / "datasets" / "Celeb-reID"
    names = {
        "train": ["1_1_0", "1_2_0", "2_1_0", "2_2_0", "3_1_0", "3_2_0"],
        "query": ["4_1_0"],
        "gallery": ["4_2_0", "4_3_0"],
    }
    rng = np.random.default_rng(0)
    for split, images in names.items():
        (root / split).mkdir(parents=True)
        for name in images:
            Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(root / split / f"{name}.jpg")
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "datasets"))
    return [str(root / "train" / f"{name}.jpg") for name in names["train"]]


def test_cache_teacher_caches_checks_and_mends(celeb, model_folder, tmp_path, capsys):
    options = [
        "--workers",
        "0",
        "DATASETS.NAMES",
        "('CelebReID',)",
        "MODEL.TEACHER.NAME",
        f"local-dir:{model_folder}",
        "MODEL.TEACHER.PRETRAINED",
        "",
        "MODEL.DEVICE",
        "cpu",
        "MODEL.TEACHER.CACHE_DIR",
        str(tmp_path / "caches"),
    ]
    assert run_verb(["cache-teacher", "--images-per-shard", "4", *options]) == 0
    assert "shards computed 2, kept 0" in capsys.readouterr().out
    (folder,) = (tmp_path / "caches").glob("*/CelebReID")
    answers = TeacherCache(folder)
    assert len(answers) == 6 and all(path in answers for path in celeb)
    assert answers.root == os.environ["FASTREID_DATASETS"]
    assert run_verb(["cache-teacher", "--check", *options]) == 0
    Image.new("RGB", (20, 40), (1, 2, 3)).save(celeb[0])
    with pytest.raises(ClearError, match="1 images changed since: Celeb-reID/train/1_1_0.jpg"):
        run_verb(["cache-teacher", "--check", *options])
    assert run_verb(["cache-teacher", "--images-per-shard", "4", *options]) == 0
    assert "shards computed 1, kept 1" in capsys.readouterr().out


def test_statistics_of_a_dataset(celeb, model_folder, tmp_path, capsys):
    plot = tmp_path / "plot.png"
    arguments = ["--statistics", "CelebReID", "--teacher", f"local-dir:{model_folder}", "--json", "--plot", str(plot)]
    assert run_verb(["label", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 6 and told["persons"] == 3 and len(told["pairs"]) == 16
    assert plot.is_file()


@pytest.mark.parametrize("flag", ["--data", "--statistics"])
def test_statistics_of_a_csv_file(flag, celeb, model_folder, tmp_path, capsys):
    """The file lists four of the training images, all of them of other people than the folders say."""
    lines = [f"{path},{person},0,train" for path, person in zip(celeb, (7, 7, 7, 8))]
    (tmp_path / "my_people.csv").write_text("\n".join(["path,pid,camid,split", *lines, f"{celeb[4]},9,0,query"]))
    arguments = [flag, str(tmp_path / "my_people.csv"), "--teacher", f"local-dir:{model_folder}", "--device", "cpu"]
    assert run_verb(["label", *arguments, "--json"]) == 0
    statistics = json.loads(capsys.readouterr().out)
    assert statistics["images"] == 4 and statistics["persons"] == 2
    assert run_verb(["label", *celeb[:4], *arguments[2:], "--json"]) == 0
    chosen = [
        [descriptor["phrase"] for descriptor in label["descriptors"]] for label in json.loads(capsys.readouterr().out)
    ]
    first = [pair.split(" / ")[0] for pair in statistics["pairs"]]
    assert statistics["phrase_1_share"] == [np.mean([phrase in row for row in chosen]) for phrase in first]
    with pytest.raises(ClearError, match="nowhere.csv is not there"):
        run_verb(["label", flag, str(tmp_path / "nowhere.csv"), *arguments[2:]])


def test_images_or_statistics_but_not_both(celeb):
    for arguments in ([], [celeb[0], "--statistics", "CelebReID"]):
        with pytest.raises(ClearError, match="either images or --"):
            run_verb(["label", *arguments])
