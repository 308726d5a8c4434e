"""Measurements: solids of known size, scaling, turning and moving, and the slow reference on real bodies."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from fastreid_clip3d.body.constants import JOINT_NAMES, JOINTS
from fastreid_clip3d.body.measurements import (
    Measurements,
    measure,
    mesh_volume,
    part_edges,
    slice_hull_perimeters,
    slice_supports,
    unique_edges,
)
from fastreid_clip3d.body.model import load_body_model
from fastreid_clip3d.body.sampling import sample_betas
from fastreid_clip3d.errors import ClearError
from tests.references.slice_perimeter import slice_perimeter

UP = torch.tensor([[0.0, 1.0, 0.0]])


def tensors(mesh: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(np.asarray(mesh.vertices))[None], torch.tensor(np.asarray(mesh.faces), dtype=torch.int64)


def turned(vertices: torch.Tensor, degrees: float) -> torch.Tensor:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return vertices @ vertices.new_tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]).T


@pytest.fixture(scope="module")
def female():
    return load_body_model(gender="female")


@pytest.fixture(scope="module")
def bodies(female):
    return female.shape(torch.from_numpy(sample_betas(6, seed=3)))


# ---- solids of known size


def test_box_has_its_perimeter_volume_and_reach():
    vertices, faces = tensors(trimesh.creation.box((0.4, 1.0, 0.3)))
    edges, levels = unique_edges(faces), torch.tensor([[[0, -0.4, 0], [0, 0.0, 0], [0, 0.3, 0]]], dtype=torch.float64)
    up = UP.double()
    assert torch.allclose(slice_hull_perimeters(vertices, edges, levels, up), torch.tensor(1.4).double(), rtol=1e-3)
    assert float(mesh_volume(vertices, faces)) == pytest.approx(0.12, rel=1e-9)
    least, most = slice_supports(vertices, edges, levels, up, first_axes=torch.tensor([[1.0, 0, 0]]).double())
    assert torch.allclose(most[..., 0] - least[..., 0], torch.tensor(0.4).double())
    assert torch.allclose(most[..., most.shape[2] // 2], torch.tensor(0.15).double())  # x cross y is z, to the front


def test_cylinder_and_cone_have_the_girths_of_circles():
    cylinder, faces = tensors(trimesh.creation.cylinder(radius=0.2, height=1.0, sections=360))
    along = torch.tensor([[0.0, 0.0, 3.0]]).double()  # any length
    girth = slice_hull_perimeters(cylinder, unique_edges(faces), torch.zeros(1, 1, 3).double(), along)
    assert float(girth) == pytest.approx(2 * math.pi * 0.2, rel=2e-4)
    assert float(mesh_volume(cylinder, faces)) == pytest.approx(math.pi * 0.04, rel=2e-4)

    cone, faces = tensors(trimesh.creation.cone(radius=0.3, height=1.0, sections=360))
    points = torch.tensor([[[0, 0, 0.25], [0, 0, 0.5]]]).double()
    girths = slice_hull_perimeters(cone, unique_edges(faces), points, along)[0]
    assert girths.tolist() == pytest.approx([2 * math.pi * 0.225, 2 * math.pi * 0.15], rel=2e-4)


def test_tilted_plane_cuts_an_ellipse():
    vertices, faces = tensors(trimesh.creation.cylinder(radius=0.1, height=2.0, sections=720))
    tilt = math.radians(50)
    normal = torch.tensor([[math.sin(tilt), 0.0, math.cos(tilt)]]).double()
    girth = slice_hull_perimeters(vertices, unique_edges(faces), torch.zeros(1, 1, 3).double(), normal)
    a, b = 0.1, 0.1 / math.cos(tilt)
    circumference = math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))  # Ramanujan
    assert float(girth) == pytest.approx(circumference, rel=5e-4)


def test_hollow_outline_is_measured_as_a_tape_does():
    """Two bars side by side: the tape goes round both."""
    bars = [trimesh.creation.box((0.1, 1.0, 0.1)).apply_translation((x, 0, 0)) for x in (-0.2, 0.2)]
    vertices, faces = tensors(trimesh.util.concatenate(bars))
    girth = slice_hull_perimeters(vertices, unique_edges(faces), torch.zeros(1, 1, 3).double(), UP.double())
    assert float(girth) == pytest.approx(2 * (0.5 + 0.1), rel=1e-3)


def test_plane_beside_the_mesh_gives_zero():
    vertices, faces = tensors(trimesh.creation.box((1, 1, 1)))
    points = torch.tensor([[[0, 0.6, 0], [0, 0.4, 0]]]).double()
    girths = slice_hull_perimeters(vertices, unique_edges(faces), points, UP.double())[0]
    assert girths[0] == 0 and girths[1] > 3.9


def test_each_body_of_a_batch_is_cut_at_its_own_height():
    vertices, faces = tensors(trimesh.creation.cone(radius=0.3, height=1.0, sections=90))
    both = torch.cat([vertices, 2 * vertices])
    points = torch.tensor([[[0, 0, 0.5]], [[0, 0, 0.5]]]).double()
    normals = torch.tensor([[0, 0, 1.0], [0, 0, 1.0]]).double()
    edges = unique_edges(faces)
    together = slice_hull_perimeters(both, edges, points, normals)
    alone = [slice_hull_perimeters(both[i : i + 1], edges, points[i : i + 1], normals[i : i + 1]) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))
    assert together[1] / together[0] == pytest.approx(3.0, rel=1e-6)


def test_parts_follow_the_skinning_weights():
    vertices, faces = tensors(trimesh.creation.box((1, 1, 1)))
    weights = torch.zeros(8, 24)
    right = vertices[0, :, 0] > 0
    weights[right, 5], weights[~right, 7] = 1.0, 1.0
    edges = part_edges(faces, weights, [5])
    assert set(edges.flatten().tolist()) == set(right.nonzero()[:, 0].tolist()) and len(edges) == 5
    assert len(part_edges(faces, weights, [5, 7])) == len(unique_edges(faces)) == 18


@pytest.mark.parametrize("directions", [0, 2, 6])
def test_directions_must_be_a_multiple_of_four(directions):
    vertices, faces = tensors(trimesh.creation.box((1, 1, 1)))
    with pytest.raises(ValueError, match="num_directions"):
        slice_supports(vertices, unique_edges(faces), torch.zeros(1, 1, 3).double(), UP.double(), None, directions)


# ---- bodies


def test_girths_agree_with_the_slow_reference(female, bodies):
    faces = female.faces.numpy()
    joints = female.joints(bodies)
    levels = joints[:, [0, 3, 9]]  # pelvis, lower and upper spine
    leg = part_edges(
        female.faces, female.weights, [JOINTS[f"left_{name}"] for name in ("hip", "knee", "ankle", "foot")]
    )
    knee, hip = joints[:, JOINTS["left_knee"]], joints[:, JOINTS["left_hip"]]
    whole = slice_hull_perimeters(bodies, unique_edges(female.faces), levels, UP.expand(len(bodies), 3))
    thigh = slice_hull_perimeters(bodies, leg, ((knee + hip) / 2)[:, None], knee - hip)
    for body in range(len(bodies)):
        mesh = bodies[body].numpy()
        for level in range(3):
            expected = slice_perimeter(mesh, faces, levels[body, level].numpy(), np.array([0.0, 1.0, 0.0]))
            assert float(whole[body, level]) == pytest.approx(expected, rel=2e-3)
        inside = female.weights[:, [1, 4, 7, 10]].sum(1).numpy() > 0.5
        limb = faces[inside[faces].all(1)]
        middle, bone = ((knee + hip) / 2)[body].numpy(), (knee - hip)[body].numpy()
        assert float(thigh[body]) == pytest.approx(slice_perimeter(mesh, limb, middle, bone), rel=2e-3)


def test_lengths_grow_with_scale_and_volume_with_its_cube(female, bodies):
    small, large = measure(bodies, female), measure(1.3 * bodies, female)
    for name in Measurements.names():
        power = {"m": 1, "m3": 3}[Measurements.unit(name)]
        assert torch.allclose(getattr(large, name), getattr(small, name) * 1.3**power, rtol=1e-4, atol=1e-6), name


def test_turning_about_y_and_moving_change_nothing(female, bodies):
    reference = measure(bodies, female)
    moved = measure(turned(bodies, 77.0) + torch.tensor([0.5, 0.9, -0.4]), female)
    for name in Measurements.names():
        tolerance = 3e-3 if "girth" in name or "protrusion" in name else 1e-4  # a hull is seen from 64 directions
        assert torch.allclose(getattr(moved, name), getattr(reference, name), rtol=tolerance, atol=2e-4), name


def test_mirrored_body_measures_the_same(female, bodies):
    """Left and right change places: meshes, joints and weights alike."""
    swap = [JOINTS[_other_side(name)] for name in JOINT_NAMES]
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    twin = SimpleNamespace(
        weights=female.weights[:, swap], faces=female.faces.flip(1), joints=lambda v: female.joints(v)[:, swap]
    )
    reference, mirrored = measure(bodies, female), measure(bodies * mirror, twin)
    for name in Measurements.names():
        assert torch.allclose(getattr(mirrored, name), getattr(reference, name), rtol=1e-4, atol=1e-5), name


def _other_side(name: str) -> str:
    return name.replace("left_", "?").replace("right_", "left_").replace("?", "right_")


def test_adults_measure_like_adults(female):
    for model, statures in ((female, (1.55, 1.72)), (load_body_model(gender="male"), (1.68, 1.85))):
        mean = {name: float(getattr(measure(model.v_template[None], model), name)) for name in Measurements.names()}
        assert statures[0] < mean["stature"] < statures[1]
        assert 0.04 < mean["volume"] < 0.1  # 40 to 100 kg
        assert mean["wrist_girth"] < mean["forearm_girth"] < mean["calf_girth"] < mean["thigh_girth"]
        assert mean["thigh_girth"] < mean["waist_girth"] < mean["bust_girth"]
        assert mean["hip_height"] < mean["waist_height"] < mean["hip_height"] + mean["torso_length"]
        assert 0.45 < mean["hip_height"] / mean["stature"] < 0.56


def test_chunks_do_not_change_the_result(female, bodies, monkeypatch):
    whole = measure(bodies, female)
    monkeypatch.setattr("fastreid_clip3d.body.measurements._CHUNK", 4)
    for name, values in vars(measure(bodies, female)).items():
        assert torch.allclose(values, getattr(whole, name), rtol=1e-6), name


# ---- errors


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v[0], "wanted"),
        (lambda v: v[:, :-1], "topology"),
        (lambda v: v[:0], "batch of 0"),
        (lambda v: v.index_fill(1, torch.tensor([17]), math.nan), "NaN"),
        (lambda v: v.index_fill(1, torch.tensor([17]), math.inf), "infinite"),
        (lambda v: v[..., [0, 2, 1]], "T-pose with y up"),
        (lambda v: v * torch.tensor([1.0, 0.0, 1.0]), "T-pose|cannot be measured"),
    ],
)
def test_unusable_bodies_are_refused(female, bodies, spoil, message):
    with pytest.raises(ClearError, match=message):
        measure(spoil(bodies), female)


def test_posed_body_is_refused(female):
    poses = torch.zeros(1, 72)
    poses[0, 3 * JOINTS["left_shoulder"] + 2] = -1.2  # the left arm down
    vertices, _ = female.pose(torch.zeros(1, 10), poses)
    with pytest.raises(ClearError, match="left arm not level"):
        measure(vertices, female)
