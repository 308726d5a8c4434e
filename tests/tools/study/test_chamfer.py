"""Chamfer distance against its definition, even sampling, and the files of photographs and scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from fastreid_clip3d.body import load_body_model
from fastreid_clip3d.errors import ClearError
from tests.references import chamfer as reference
from tools.study import chamfer as subject


def test_chamfer_is_what_looking_at_every_pair_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(60, 3, generator=generator), 0.5 + torch.randn(45, 3, generator=generator)
    expected = reference.chamfer(first.double().numpy(), second.double().numpy())
    assert subject.chamfer(first, second) == pytest.approx(expected, rel=1e-5)
    assert subject.chamfer(first, first) == 0


def two_sheets() -> subject.Mesh:
    """Squares of areas 1 and 9, at z = 0 and z = 1."""
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return subject.Mesh(torch.cat([square, 3 * square + torch.tensor([0.0, 0, 1])]), torch.cat([faces, faces + 4]))


def test_points_are_spread_by_area_and_centred() -> None:
    points = subject.sample_points(two_sheets(), 4000, 0)
    assert points.shape == (4000, 3)
    assert points.mean(0).abs().max() < 1e-5
    assert (points[:, 2] > 0).float().mean() == pytest.approx(0.9, abs=0.02)
    assert torch.equal(points, subject.sample_points(two_sheets(), 4000, 0))
    assert not torch.equal(points, subject.sample_points(two_sheets(), 4000, 1))


def test_sampling_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    subject.sample_points(two_sheets(), 10, 0)
    assert torch.equal(torch.rand(2), expected)


def test_where_a_mesh_stands_does_not_matter() -> None:
    mesh = two_sheets()
    moved = subject.Mesh(mesh.vertices + torch.tensor([5.0, -2.0, 1.0]), mesh.faces)
    larger = subject.Mesh(1.3 * mesh.vertices, mesh.faces)
    floor = subject.mesh_distance(mesh, mesh, 500)
    assert subject.mesh_distance(mesh, moved, 500) == pytest.approx(floor, rel=1e-3)
    assert subject.mesh_distance(mesh, larger, 500) > 3 * floor


def test_a_right_prediction_is_at_the_floor_and_a_wrong_one_is_not() -> None:
    neutral = load_body_model("", "neutral", 10)
    betas = torch.zeros(2, 10)
    betas[:, 1], betas[:, 0] = 2.5, torch.tensor([3.0, -3.0])
    meshes = [subject.Mesh(vertices, neutral.faces) for vertices in neutral.shape(betas)]
    truth = subject.Truth(["a.png", "b.png"], meshes, [0, -1], "two bodies")
    found = subject.distances(truth, {"right": betas, "wrong": -betas}, points=600)
    assert list(found) == ["right", "wrong", subject.NEUTRAL, subject.GENDERED, subject.FLOOR]
    assert len(found[subject.GENDERED]) == 1  # the second person's sex is not known
    for right, wrong, mean, floor in zip(found["right"], found["wrong"], found[subject.NEUTRAL], found[subject.FLOOR]):
        assert right == pytest.approx(floor, rel=0.2) and floor < mean < wrong


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    box = trimesh.creation.box(extents=(0.5, 1.7, 0.3))
    box.export(tmp_path / "person.obj")
    trimesh.creation.box(extents=(50, 170, 30)).export(tmp_path / "centimetres.obj")
    (tmp_path / "text.obj").write_text("no mesh")
    return tmp_path


def test_pairs_are_read_with_paths_relative_to_the_file(photographs: Path) -> None:
    (photographs / "hbw.csv").write_text("image,mesh,gender\na.png,person.obj,female\na.png,person.obj,\n")
    truth = subject.read_pairs(photographs)
    assert truth.images == [str(photographs / "a.png")] * 2 and truth.gender == [0, -1]
    assert truth.meshes[0] is truth.meshes[1] and truth.meshes[0].faces.shape == (12, 3)
    assert np.ptp(truth.meshes[0].vertices[:, 1].numpy()) == pytest.approx(1.7)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("photo,mesh\na.png,person.obj\n", "columns image and mesh"),
        ("image,mesh\nb.png,person.obj\n", "line 2: there is no image"),
        ("image,mesh\na.png,gone.obj\n", "line 2: .*gone.obj cannot be read"),
        ("image,mesh\na.png,text.obj\n", "text.obj"),
        ("image,mesh\na.png,centimetres.obj\n", "in metres"),
        ("image,mesh,gender\na.png,person.obj,f\n", "female, male or empty"),
        ("image,mesh\n", "no rows"),
    ],
)
def test_faults_of_pairs_are_named(photographs: Path, lines: str, words: str) -> None:
    (photographs / "hbw.csv").write_text(lines)
    with pytest.raises(ClearError, match=words):
        subject.read_pairs(photographs / "hbw.csv")


def test_a_folder_without_pairs_gets_a_description_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ClearError, match="image,mesh"):
        subject.read_pairs(tmp_path)
