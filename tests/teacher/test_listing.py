from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError, run_tool
from fastreid_clip3d.teacher import build_cache, load_teacher
from fastreid_clip3d.teacher.listing import draw_sheet, label_images, reading_processes
from fastreid_clip3d.vocabulary import PHRASE_PAIRS

REPOSITORY = Path(__file__).resolve().parents[2]


def test_labels_are_the_teachers_whatever_the_batch(teacher, pictures):
    labels = list(label_images(teacher, pictures, batch=4))
    assert [label.path for label in labels] == pictures
    for label in labels:
        _, scores, choices = teacher.label_images(teacher.preprocess(Image.open(label.path))[None])
        np.testing.assert_allclose(label.scores, scores[0], atol=1e-6)
        assert label.phrase_choices.tolist() == choices[0].tolist()
        for (chosen, score, other, lower), pair in zip(label.phrases(), PHRASE_PAIRS):
            assert {chosen, other} == {pair.phrase_1, pair.phrase_2} and score >= lower


def test_a_broken_image_is_named_from_a_worker_too(teacher, pictures):
    Path(pictures[1]).write_bytes(b"no image")
    for workers in (0, 1):
        with pytest.raises(ClearError, match="01.png"):
            list(label_images(teacher, pictures, num_workers=workers))


def test_an_image_that_is_too_narrow_to_pad_is_named(model_folder, tmp_path):
    path = tmp_path / "thread.png"
    Image.new("RGB", (1, 65000)).save(path)
    padding = load_teacher(f"local-dir:{model_folder}", resize="pad")
    with pytest.raises(ClearError, match="thread.png.* 65000 x 1 pixels"):
        list(label_images(padding, [str(path)], num_workers=0))
    with pytest.raises(ClearError, match="thread.png.* 65000 x 1 pixels"):
        build_cache([str(path)], padding, tmp_path / "cache", progress=False)


def test_nobody_reads_beside_a_teacher_on_a_cpu(teacher):
    assert teacher.device.type == "cpu" and reading_processes(teacher) == 0
    on_cuda = SimpleNamespace(device=torch.device("cuda"))
    assert reading_processes(on_cuda) == 2


def test_the_sheet(teacher, pictures, tmp_path):
    strange = [str(tmp_path / name) for name in ("a$_$b.png", os.fsdecode(b"caf\xe9.png"))]
    for path in strange:
        shutil.copy(pictures[0], path)
    labels = list(label_images(teacher, [*pictures[:3], *strange]))
    sheet = draw_sheet(labels, tmp_path / "new" / "sheet.png")
    assert Image.open(sheet).size[0] > 800


def test_the_tool_prints_json(model_folder, pictures, capsys):
    assert run_verb(["label", *pictures[:2], "--teacher", f"local-dir:{model_folder}", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first["image"] == pictures[0] and len(first["descriptors"]) == 16
    assert set(first["descriptors"][0]) == {"phrase", "score", "opposite", "opposite_score"}


def test_the_tool_ends_with_one_message(model_folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_tool(lambda: run_verb(["label", str(tmp_path / "gone.jpg"), "--teacher", f"local-dir:{model_folder}"]))
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and "gone.jpg" in printed and "Traceback" not in printed
