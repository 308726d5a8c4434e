"""The sub-commands of clip3d visualize on small files of their own, and what they say of runs that cannot be drawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import write_features
from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from fastreid_clip3d.teacher.clip import load_teacher
from fastreid_clip3d.visualization.transport import transport_maps
from tests.standins import small_config, tiny_teacher_folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder that holds nothing but the features of six people in two outfits."""
    generator = np.random.default_rng(0)
    sides = []
    for side, count in (("query", 12), ("gallery", 24)):
        names = [str(tmp_path / f"{side}{place}.png") for place in range(count)]
        for place, name in enumerate(names):
            Image.new("RGB", (8, 16), (9 * place, 90, 0)).save(name)
        features = torch.from_numpy(generator.standard_normal((count, 4)).astype(np.float32))
        pids, outfits = np.arange(count) % 6, np.arange(count) // 6 % 2
        sides.append(LabelledFeatures(features, pids, np.full(count, len(side)), outfits, tuple(names)))
    write_features(tmp_path / "runs" / "one" / "evaluation" / "Small_features.npz", *sides)
    return tmp_path / "runs" / "one"


def test_ranking_and_embedding_need_no_model(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "out" / "sheet.png"
    run_verb(
        [
            "visualize",
            "ranking",
            "--models",
            str(run),
            str(run),
            "--protocol",
            "CC",
            "--queries",
            "2",
            "--output",
            str(output),
        ]
    )
    assert Image.open(output).height == 40 + 2 * (2 * (128 + 6 + 14 + 4) + 8)
    printed = capsys.readouterr().out
    assert "2 queries, drawn at random (seed 0); one (1) mAP" in printed and ", one (2) mAP" in printed
    run_verb(["visualize", "embedding", "--model", str(run), "--method", "pca", "--output", str(output)])
    assert "Nearest neighbour shows the same person: " in capsys.readouterr().out
    with pytest.raises(ClearError, match="Did you mean general"):
        run_verb(["visualize", "ranking", "--models", str(run), "--protocol", "generl"])


def test_bodies_take_either_bodies_or_images(run: Path) -> None:
    for more in ([], ["--bodies", "a", "--images", "b"]):
        with pytest.raises(ClearError, match="either --bodies .* or --images"):
            run_verb(["visualize", "bodies", "--model", str(run), *more])


def test_an_onnx_file_has_no_patches(tmp_path: Path) -> None:
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    words = ["--phrases", "tall", "--images", str(tmp_path / "a.png"), "--output", str(tmp_path / "t.png")]
    with pytest.raises(ClearError, match="student.onnx is an exported student. Give the run folder"):
        run_verb(["visualize", "transport", "--model", "student.onnx", *words])


@pytest.mark.parametrize("command", ["transport", "bodies", "ranking", "embedding"])
def test_the_output_is_checked_before_the_work(command: str, tmp_path: Path) -> None:
    """None of the runs and pictures exists: the message is about the file that would be written last."""
    words = ["--models" if command == "ranking" else "--model", "nowhere", "--output", str(tmp_path / "x.txt")]
    words += {"transport": ["--images", "no.png", "--phrases", "tall"], "bodies": ["--images", "no.png"]}.get(
        command, []
    )
    with pytest.raises(ClearError, match=r"x.txt: the name ends in .txt; it can be written as .png"):
        run_verb(["visualize", command, *words])


def test_maps_are_of_the_labels_that_the_teacher_gives(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = []
    for place in range(2):
        images.append(tmp_path / f"{place}.png")
        Image.fromarray(generator.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(images[-1])
    torch.manual_seed(0)
    teacher = load_teacher(tiny_teacher_folder(tmp_path / "teacher"), "", "squash", "cpu")
    features = torch.randn(2, 6, 5)
    model = SimpleNamespace(
        cfg=small_config(), map_size=(3, 2), phrase_features=torch.randn(32, 5), local_features=lambda paths: features
    )
    found = transport_maps(model, images, ["tall", "Short"], teacher)
    assert found.phrases == ("Tall", "Short") and found.maps.shape == (2, 2, 3, 2)
    assert (found.chosen.sum(1) == 1).all()  # opposite phrases: one is the label
    assert torch.allclose(found.maps.mean((2, 3)), torch.ones(2, 2), atol=1e-5)
    pixels = torch.stack([teacher.image_transform(Image.open(image).convert("RGB")) for image in images])
    assert found.chosen[:, 1].tolist() == (teacher.label_images(pixels)[2][:, 3] == 1).tolist()
