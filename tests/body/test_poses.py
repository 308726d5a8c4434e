"""The pool of poses: sane joints, soles on the ground, and users' own files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch3d.transforms import axis_angle_to_matrix

from fastreid_clip3d.body.constants import JOINTS
from fastreid_clip3d.body.model import load_body_model
from fastreid_clip3d.body.poses import load_pose_pool, make_pose_pool, pool_fingerprint
from fastreid_clip3d.errors import ClearError


@pytest.fixture(scope="module")
def pool() -> torch.Tensor:
    return load_pose_pool()


@pytest.fixture(scope="module")
def bodies(pool):
    """The mean neutral body in every pose: vertices [100, V, 3], joints [100, 24, 3] and the model."""
    model = load_body_model()
    with torch.no_grad():
        vertices, joints = model.pose(torch.zeros(len(pool), model.num_betas), pool)
    return vertices, joints, model


def test_pool_is_a_hundred_poses_and_follows_its_seed(pool):
    assert pool.shape == (100, 72) and pool.dtype == torch.float32 and pool.isfinite().all()
    assert torch.equal(pool, make_pose_pool())
    assert pool_fingerprint(pool) != pool_fingerprint(make_pose_pool(seed=1))
    assert torch.cdist(pool, pool).add(torch.eye(100) * 9).min() > 0.05  # no pose twice


def test_joints_stay_within_what_a_body_can_do(pool):
    rotations = pool.view(100, 24, 3).rad2deg()
    angles = rotations.norm(dim=-1)
    limits = {
        "hip": 60, "knee": 80, "ankle": 45, "foot": 45, "spine1": 15, "neck": 45, "head": 45, "collar": 15,
        "shoulder": 110, "elbow": 150, "wrist": 40, "pelvis": 20,
    }  # fmt: skip
    for part, limit in limits.items():
        rows = [row for joint, row in JOINTS.items() if joint.endswith(part)]
        assert rows and angles[:, rows].max() < limit, part
    knees = rotations[:, [JOINTS["left_knee"], JOINTS["right_knee"]]]
    assert knees[..., 0].min() > -6 and knees[..., 1:].abs().max() < 1  # a hinge that bends backwards only
    # Elbows bend the forearm to the front of the T-pose: about -y on the left, about +y on the right.
    forearm = axis_angle_to_matrix(pool.view(100, 24, 3)[:, [JOINTS["left_elbow"], JOINTS["right_elbow"]]])
    assert (forearm[:, 0] @ torch.tensor([1.0, 0, 0]))[:, 2].min() > 0
    assert (forearm[:, 1] @ torch.tensor([-1.0, 0, 0]))[:, 2].min() > 0


def test_bodies_stand_upright_with_arms_down(bodies):
    _, joints, _ = bodies
    trunk = torch.nn.functional.normalize(joints[:, JOINTS["neck"]] - joints[:, JOINTS["pelvis"]], dim=-1)
    assert trunk[:, 1].min() > 0.97
    hands = joints[:, [JOINTS["left_wrist"], JOINTS["right_wrist"]], 1] - joints[:, None, JOINTS["neck"], 1]
    assert (hands < 0).float().mean() > 0.95


def test_walking_poses_cover_all_phases(bodies):
    _, joints, _ = bodies
    ahead = joints[:52, JOINTS["left_ankle"], 2] - joints[:52, JOINTS["right_ankle"], 2]
    assert ahead.max() > 0.35 and ahead.min() < -0.35
    assert 15 < (ahead > 0).sum() < 37
    knees = joints[:52, JOINTS["left_knee"], 2] - joints[:52, JOINTS["right_knee"], 2]
    assert (knees * ahead > 0).float().mean() > 0.7  # the leg in front has the knee in front


def test_standing_soles_are_on_the_ground(bodies):
    vertices, _, model = bodies
    owner = model.weights.argmax(1)
    for side in ("left", "right"):
        foot = (owner == JOINTS[f"{side}_ankle"]) | (owner == JOINTS[f"{side}_foot"])
        lowest = vertices[52:, foot, 1].amin(1) - vertices[52:, :, 1].amin(1)
        assert lowest.max() < 0.02


def test_a_foot_is_on_the_ground_while_walking(bodies):
    vertices, _, model = bodies
    owner = model.weights.argmax(1)
    feet = torch.stack(
        [owner == JOINTS[name] for name in ("left_ankle", "right_ankle", "left_foot", "right_foot")]
    ).any(0)
    lowest = vertices[:, :, 1].amin(1)
    assert torch.equal(vertices[:, feet, 1].amin(1), lowest)


def test_hands_do_not_sink_into_thighs(bodies):
    _, joints, _ = bodies
    for side in ("left", "right"):
        hand = joints[:, JOINTS[f"{side}_hand"]]
        for leg in ("left", "right"):
            hip, knee = joints[:, JOINTS[f"{leg}_hip"]], joints[:, JOINTS[f"{leg}_knee"]]
            along = ((hand - hip) * (knee - hip)).sum(1) / ((knee - hip) ** 2).sum(1)
            distance = (hand - (hip + along.clamp(0, 1)[:, None] * (knee - hip))).norm(dim=1)
            assert distance.min() > 0.08


@pytest.mark.parametrize("name", ["poses.npy", "poses.npz", "single.npz", "joints.npy"])
def test_users_own_poses(tmp_path, name):
    poses = np.random.default_rng(0).normal(size=(7, 72))
    if name == "poses.npy":
        np.save(tmp_path / name, poses)
    elif name == "joints.npy":
        np.save(tmp_path / name, poses.reshape(7, 24, 3))
    else:
        np.savez(tmp_path / name, **({"poses": poses, "other": poses[:2]} if name == "poses.npz" else {"p": poses}))
    loaded = load_pose_pool(tmp_path / name)
    assert loaded.dtype == torch.float32
    np.testing.assert_allclose(loaded.numpy(), poses, rtol=1e-6)


def broken_files() -> dict[str, tuple[str, object]]:
    nan = np.zeros((4, 72))
    nan[2, 5] = np.nan
    return {
        "shape": ("[3, 63]", np.zeros((3, 63))),
        "empty": ("[0, 72]", np.zeros((0, 72))),
        "nan": ("pose 2", nan),
        "large": ("pose 1", np.array([72 * [0.0], 72 * [1e39]])),
        "type": ("complex128", np.zeros((3, 72), complex)),
        "pickle": ("cannot read", np.array([{"a": 1}], dtype=object)),
    }


@pytest.mark.parametrize("case", broken_files())
def test_broken_files_are_refused(tmp_path, case):
    message, array = broken_files()[case]
    path = tmp_path / "bad.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(ClearError) as error:
        load_pose_pool(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_missing_cut_and_nameless_files_are_refused(tmp_path):
    with pytest.raises(ClearError, match="no pose file"):
        load_pose_pool(tmp_path / "none.npz")
    path = tmp_path / "cut.npz"
    np.savez(path, poses=np.zeros((5, 72)))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ClearError, match="cannot read"):
        load_pose_pool(path)
    np.savez(path, a=np.zeros((5, 72)), b=np.zeros((5, 72)))
    with pytest.raises(ClearError, match="a, b"):
        load_pose_pool(path)


@pytest.mark.parametrize("damage", ["flip", "method", "header"])
def test_damaged_files_are_refused(tmp_path, damage):
    path = tmp_path / ("poses.npy" if damage == "header" else "poses.npz")
    if damage == "header":
        np.save(path, np.zeros((5, 72)))
        data = path.read_bytes().replace(b"'fortran", b"('ortran")  # numpy parses the header as Python
    else:
        np.savez_compressed(path, poses=np.random.default_rng(0).normal(size=(5, 72)))
        data = path.read_bytes()
        # Byte 10 of an entry in the list of the archive's members is the method of compression.
        place, new = (data.index(b"PK\1\2") + 10, b"\x63") if damage == "method" else (300, b"\xff" * 60)
        data = data[:place] + new + data[place + len(new) :]
    path.write_bytes(data)
    with pytest.raises(ClearError, match="cannot read poses from"):
        load_pose_pool(path)
