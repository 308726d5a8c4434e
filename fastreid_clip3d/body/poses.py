"""A seeded pool of 100 body poses: walking in all phases, standing, contrapposto, carrying, gestures.

The paper predicted its poses from 100 photographs (Section 3.4). Here a gait or a stance gives the place and the turn
of each foot; hips, knees and ankles follow from the lengths of thigh and shank. So the soles meet the ground.

SMPL frame: y up, the body faces +z, its left is +x, rest is the T-pose. Signs of rotations about a joint's
axes: x > 0 leans the trunk forward, bends a knee and points the toes down; x < 0 lifts a thigh or an arm to the front.
Legend: K poses, 24 joints, 72 = 24 x 3 axis-angle in radians.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
import torch

from fastreid_clip3d.body.archives import DAMAGES
from fastreid_clip3d.body.constants import JOINTS, NUM_JOINTS
from fastreid_clip3d.errors import ClearError

POOL_SIZE = 100
POOL_SEED = 20240617

# Left leg of an average adult in rest, metres: from the pelvis to the hip, hip to knee, knee to ankle; where the heel
# and the ball of the foot touch the ground, from the ankle. The right leg is the mirror image.
HIP = np.array([0.110, -0.011, -0.008])
THIGH = np.array([0.016, -0.382, 0.031])
SHANK = np.array([0.020, -0.431, -0.031])
HEEL = np.array([0.0, -0.076, -0.040])
BALL = np.array([0.010, -0.072, 0.130])
MIRROR = np.array([-1.0, 1.0, 1.0])


def load_pose_pool(path: str | Path = "") -> torch.Tensor:
    """A pool of poses, float32 [K, 72]; "" gives the built-in pool of 100.

    A user's file is ``.npy`` or ``.npz`` (its only array, or the one named ``poses``): axis-angle in radians in SMPL's
    joint order, float [K, 72] or [K, 24, 3].

    Raises:
        ClearError: the file is missing, unreadable or of another shape, or it holds NaN or infinite numbers.
    """
    if not str(path):
        return _built_in_pool().clone()
    path = Path(path)
    wanted = "wanted are axis-angle poses in radians, float [K, 72], as .npy or .npz"
    if not path.is_file():
        raise ClearError(f"no pose file at {path}: {wanted}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                names = loaded.files
                name = "poses" if "poses" in names else names[0] if len(names) == 1 else None
                if name is None:
                    raise ClearError(
                        f"{path} holds the arrays {', '.join(names)}: give that of the poses the name 'poses'"
                    )
                poses = loaded[name]
        else:
            poses = loaded
    except DAMAGES as error:
        raise ClearError(f"cannot read poses from {path} ({error}): {wanted}") from error
    if poses.ndim == 3 and poses.shape[1:] == (NUM_JOINTS, 3):
        poses = poses.reshape(-1, 3 * NUM_JOINTS)
    if poses.ndim != 2 or poses.shape[1] != 3 * NUM_JOINTS or len(poses) == 0:
        raise ClearError(f"poses in {path} have the shape {list(poses.shape)}: {wanted}")
    if poses.dtype.kind not in "fiu":
        raise ClearError(f"poses in {path} have the type {poses.dtype}: {wanted}")
    with np.errstate(over="ignore"):  # too large for float32: infinity, which is refused
        poses = poses.astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(poses).all(1))
    if len(broken):
        raise ClearError(f"pose {broken[0]} in {path} holds NaN or infinity ({len(broken)} such poses): {wanted}")
    return torch.from_numpy(poses)


def pool_fingerprint(poses: torch.Tensor) -> str:
    """Hash of a pool, to a ten-thousandth of a radian."""
    rounded = np.round(poses.numpy().astype(np.float64) * 1e4).astype(np.int64)
    return hashlib.sha256(rounded.tobytes()).hexdigest()[:16]


@functools.cache
def _built_in_pool() -> torch.Tensor:
    """Made once: a tenth of a second."""
    return make_pose_pool()


def make_pose_pool(seed: int = POOL_SEED) -> torch.Tensor:
    """The built-in pool, float32 [100, 72]: the same numbers for the same seed.

    52 walking (phases evenly spread; free arms, a bag, a telephone, something carried in front, a push), 20 standing
    with weight on both feet, 14 in contrapposto, 8 standing and carrying, 6 gestures.
    """
    from pytorch3d.transforms import matrix_to_axis_angle

    generator = np.random.default_rng(seed)
    walking_arms = ["swing"] * 34 + ["bag"] * 7 + ["phone"] * 4 + ["box"] * 4 + ["push"] * 3
    generator.shuffle(walking_arms)
    figures = [_walking((i + generator.uniform(0, 0.9)) / 52, arms, generator) for i, arms in enumerate(walking_arms)]
    standing_arms = ["hang"] * 12 + ["hip"] * 2 + ["phone"] * 2 + ["clasped"] * 4
    figures += [_standing(arms, generator) for arms in standing_arms]
    figures += [_contrapposto(arms, generator) for arms in ["hang"] * 9 + ["hip"] * 3 + ["strap"] * 2]
    figures += [_standing(arms, generator) for arms in ["bag"] * 3 + ["box"] * 3 + ["strap"] * 2]
    figures += [_standing(arms, generator) for arms in ("call", "call", "wave", "point", "hips", "hips")]
    matrices = torch.from_numpy(np.stack([figure.rotations for figure in figures]))
    return matrix_to_axis_angle(matrices).reshape(len(figures), 3 * NUM_JOINTS).float()


def turn(axis: str, degrees: float) -> np.ndarray:
    """Rotation matrix [3, 3] about x, y or z."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = -sin, sin
    return matrix


class _Foot:
    """Where a foot is: its ankle above flat ground, and how it is turned. `side` is +1 left, -1 right.

    With a flat sole the ankle would be `across` metres to the left and `along` metres to the front. The toes point
    `yaw` degrees outwards. A `pitch` > 0 raises the heel on the ball, < 0 the toes on the heel, in degrees; `lift`
    raises the whole foot, in metres.
    """

    def __init__(self, side: int, across: float, along: float, yaw: float, pitch: float = 0.0, lift: float = 0.0):
        self.side = side
        self.pitch = pitch
        self.rotation = turn("y", side * yaw) @ turn("x", pitch)
        pivot = (BALL if pitch > 0 else HEEL) * (MIRROR if side < 0 else 1.0)
        ground = np.array([across, -HEEL[1] + lift, along]) + turn("y", side * yaw) @ pivot
        self.ankle = ground - self.rotation @ pivot


class _Figure:
    """Local rotations [24, 3, 3] of one body."""

    def __init__(self, generator: np.random.Generator):
        self.generator = generator
        self.rotations = np.tile(np.eye(3), (NUM_JOINTS, 1, 1))

    def set(self, joint: str, rotation: np.ndarray) -> None:
        self.rotations[JOINTS[joint]] = rotation

    def around(self, middle: float, spread: float) -> float:
        """A number near `middle`, never further away than twice the spread."""
        return middle + spread * float(np.clip(self.generator.normal(), -2, 2))

    def trunk(self, lean: float, twist: float, side_bend: float) -> None:
        """Bends the three spine joints together: degrees to the front, to the left and to the left side."""
        part = turn("y", twist / 3) @ turn("z", side_bend / 3) @ turn("x", lean / 3)
        for joint in ("spine1", "spine2", "spine3"):
            self.set(joint, part)

    def look(self, yaw: float, pitch: float, tilt: float = 0.0) -> None:
        """Turns the head: degrees to the left, down and to the side, shared by neck and head."""
        self.set("neck", turn("y", 0.45 * yaw) @ turn("x", 0.4 * pitch) @ turn("z", 0.5 * tilt))
        self.set("head", turn("y", 0.55 * yaw) @ turn("x", 0.6 * pitch) @ turn("z", 0.5 * tilt))

    def arm(
        self, side: int, lower: float, swing: float, twist: float, elbow: float,
        forearm: float = 0.0, wrist: float = 0.0, collar: float = 6.0,
    ) -> None:  # fmt: skip
        """Places one arm; degrees.

        Args:
            side: +1 left, -1 right.
            lower: down from the T-pose, 90 is vertical; the collar takes its own part of it.
            swing: to the front (> 0) or to the back of the lowered arm.
            twist: inward rotation of the upper arm about itself: a bent forearm then points to the other side.
            elbow: bend, 0 is straight.
            forearm: inward rotation of the hand about the forearm.
            wrist: bend of the hand towards the palm.
            collar: how far the shoulder drops.
        """
        name = "left" if side > 0 else "right"
        self.set(f"{name}_collar", turn("z", -side * collar))
        upper = turn("x", -swing) @ turn("z", -side * (lower - collar)) @ turn("x", twist)
        self.set(f"{name}_shoulder", upper)
        # Elbow and wrist share the hand's rotation about the forearm; at one joint alone it would twist the skin.
        self.set(f"{name}_elbow", turn("y", -side * elbow) @ turn("x", 0.5 * forearm))
        self.set(f"{name}_wrist", turn("x", 0.5 * forearm) @ turn("z", -side * wrist))
        self.set(f"{name}_hand", turn("z", -side * self.generator.uniform(5, 20)))

    def legs(self, pelvis: np.ndarray, feet: tuple[_Foot, _Foot], bears: tuple[bool, bool], straight: float) -> None:
        """Places pelvis (its rotation [3, 3] in the world) and legs by the left and the right foot.

        `bears`: whether each foot bears weight; `straight`: the straightest bearing leg's share of its full length.
        """
        self.set("pelvis", pelvis)
        # The pelvis is over the middle of both feet, or nearer to the one that bears weight.
        left = 0.5 + 0.15 * (int(bears[0]) - int(bears[1]))
        position = np.array([left * feet[0].ankle[0] + (1 - left) * feet[1].ankle[0], 0.0, 0.0])
        heights = []
        for foot, bearing in zip(feet, bears):
            thigh, shank, hip = _leg(foot.side)
            offset = position + pelvis @ hip - foot.ankle
            reach = (straight if bearing else 0.97) * np.linalg.norm(thigh + shank)
            level = offset[0] ** 2 + offset[2] ** 2
            heights.append(np.sqrt(max(reach**2 - level, 0.01)) - offset[1])
        position[1] = min(heights)
        for foot in feet:
            self._leg(pelvis, position, foot)

    def _leg(self, pelvis: np.ndarray, position: np.ndarray, foot: _Foot) -> None:
        name = "left" if foot.side > 0 else "right"
        thigh, shank, hip = _leg(foot.side)
        wanted = pelvis.T @ (foot.ankle - position) - hip
        distance = np.linalg.norm(wanted)
        low, high = -5.0, 150.0
        for _ in range(50):  # the bend of the knee at which hip and ankle are as far apart as wanted
            bend = (low + high) / 2
            if np.linalg.norm(thigh + turn("x", bend) @ shank) > distance:
                low = bend
            else:
                high = bend
        knee = turn("x", bend)
        yaw = turn("y", np.rad2deg(np.arctan2(*(pelvis.T @ foot.rotation[:, 2])[[0, 2]])) * 0.7)
        rest = yaw @ (thigh + knee @ shank)
        hip_rotation = _align(rest, wanted) @ yaw
        self.set(f"{name}_hip", hip_rotation)
        self.set(f"{name}_knee", knee)
        self.set(f"{name}_ankle", (pelvis @ hip_rotation @ knee).T @ foot.rotation)
        self.set(f"{name}_foot", turn("x", -0.8 * max(foot.pitch, 0.0)))


def _leg(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thigh, shank and hip offset of the left (+1) or right (-1) leg."""
    mirror = MIRROR if side < 0 else np.ones(3)
    return THIGH * mirror, SHANK * mirror, HIP * mirror


def _align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotation [3, 3] that turns one direction into another."""
    a, b = source / np.linalg.norm(source), target / np.linalg.norm(target)
    cross, dot = np.cross(a, b), float(a @ b)
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return np.eye(3) + skew + skew @ skew / (1 + dot)


def _stride(side: int, phase: float, stride: float, width: float, yaw: float) -> tuple[_Foot, bool]:
    """A foot in the gait cycle: heel strike at phase 0, toes leave the ground at 0.6, swing until 1."""
    phase %= 1.0
    stance = 0.6
    if phase < stance:
        t = phase / stance
        along = stride * (0.5 - t)
        # Toes come down within the first fifth, the heel rises over the last two fifths.
        pitch = -16 * max(1 - t / 0.18, 0.0) + 38 * max((t - 0.6) / 0.4, 0.0) ** 1.5
        return _Foot(side, side * width / 2, along, yaw, pitch), True
    t = (phase - stance) / (1 - stance)
    smooth = t * t * (3 - 2 * t)
    along = stride * (smooth - 0.5)
    pitch = np.interp(t, [0, 0.15, 0.5, 0.8, 1], [38, 48, 18, -8, -16])
    lift = 0.075 * np.sin(np.pi * t) ** 0.8 + 0.01 * t * (1 - t)
    return _Foot(side, side * width / 2, along, yaw, float(pitch), float(lift)), False


def _walking(phase: float, arms: str, generator: np.random.Generator) -> _Figure:
    """One moment of a walk; `phase` 0..1 is the left foot's."""
    figure = _Figure(generator)
    pace = generator.uniform(0.65, 1.1)
    stride, width, yaw = 0.62 * pace, figure.around(0.17, 0.02), figure.around(7, 3)
    left, left_bears = _stride(1, phase, stride, width, yaw)
    right, right_bears = _stride(-1, phase + 0.5, stride, width, yaw)
    forward = np.cos(2 * np.pi * phase)  # > 0: left leg in front
    over_left = np.sin(2 * np.pi * phase)  # > 0: weight on the left leg
    lean = figure.around(3, 1.5)
    pelvis = turn("y", -6 * pace * forward) @ turn("z", 3 * pace * over_left) @ turn("x", lean)
    figure.legs(pelvis, (left, right), (left_bears, right_bears), figure.around(0.985, 0.004))
    figure.trunk(figure.around(1, 2), 10 * pace * forward, -3 * pace * over_left)
    figure.look(figure.around(0, 18), figure.around(0, 6), figure.around(0, 2))
    for side in (1, -1):
        swing = -side * forward * figure.around(24, 4) * pace + figure.around(0, 2)
        lower, twist = figure.around(72, 2.5), figure.around(18, 6)
        elbow = figure.around(20, 5) + 0.5 * max(swing, 0.0)
        figure.arm(side, lower, swing, twist, elbow, forearm=figure.around(5, 8))
    _place_arms(figure, arms)
    return figure


def _standing(arms: str, generator: np.random.Generator) -> _Figure:
    """Standing with weight on both feet, feet a little apart, one perhaps in front of the other."""
    figure = _Figure(generator)
    width, apart = generator.uniform(0.20, 0.38), figure.around(0, 0.05)
    left, right = (_Foot(side, side * width / 2, side * apart, figure.around(12, 5)) for side in (1, -1))
    lean = figure.around(1, 1.5)
    pelvis = turn("y", figure.around(0, 4)) @ turn("z", figure.around(0, 1.2)) @ turn("x", lean)
    figure.legs(pelvis, (left, right), (True, True), figure.around(0.988, 0.004))
    figure.trunk(figure.around(2, 2), figure.around(0, 5), figure.around(0, 2))
    figure.look(figure.around(0, 25), figure.around(3, 8), figure.around(0, 4))
    _hang_arms(figure)
    _place_arms(figure, arms)
    return figure


def _contrapposto(arms: str, generator: np.random.Generator) -> _Figure:
    """Weight on one straight leg, the other knee relaxed, hips and shoulders tilted against each other."""
    figure = _Figure(generator)
    side = int(generator.choice((1, -1)))  # the leg that bears the weight
    tilt = generator.uniform(4, 8)
    bearing = _Foot(side, side * figure.around(0.045, 0.01), figure.around(0.0, 0.01), figure.around(10, 3))
    across, along, yaw = -side * figure.around(0.19, 0.02), generator.uniform(0.04, 0.16), figure.around(24, 6)
    relaxed = _Foot(-side, across, along, yaw, pitch=float(generator.choice((0.0, 0.0, 14.0))))
    pelvis = turn("y", -side * figure.around(5, 3)) @ turn("z", side * tilt) @ turn("x", figure.around(0, 1.5))
    feet = (bearing, relaxed) if side > 0 else (relaxed, bearing)
    figure.legs(pelvis, feet, (side > 0, side < 0), figure.around(0.992, 0.003))
    figure.trunk(figure.around(2, 2), side * figure.around(6, 3), -side * 1.5 * tilt)
    figure.look(figure.around(0, 25), figure.around(3, 7), side * figure.around(2, 3))
    _hang_arms(figure)
    _place_arms(figure, arms)
    return figure


def _hang_arms(figure: _Figure) -> None:
    around = figure.around
    for side in (1, -1):
        lower, swing, twist = around(71, 3), around(1, 4), around(20, 7)
        figure.arm(side, lower, swing, twist, elbow=around(16, 5), forearm=around(8, 8))


def _place_arms(figure: _Figure, arms: str) -> None:
    """Replaces hanging or swinging arms by what the arms do; "hang" and "swing" leave them."""
    around, arm = figure.around, figure.arm
    side = int(figure.generator.choice((1, -1)))
    if arms == "bag":
        arm(side, lower=around(73, 2), swing=around(0, 3), twist=around(10, 4), elbow=around(7, 2), collar=8)
    elif arms == "phone":
        arm(side, lower=around(70, 2), swing=around(24, 4), twist=around(28, 5), elbow=around(98, 6), forearm=-40)
        figure.look(side * around(8, 4), around(22, 4))
    elif arms == "box":
        swing, elbow = around(20, 4), around(78, 6)
        for each in (1, -1):
            arm(each, lower=around(70, 1), swing=swing, twist=around(14, 3), elbow=elbow, forearm=-30)
    elif arms == "push":
        swing, elbow = around(30, 4), around(42, 5)
        for each in (1, -1):
            arm(each, lower=around(73, 1), swing=swing, twist=around(10, 3), elbow=elbow, forearm=20)
    elif arms in ("hip", "hips"):
        for each in (side,) if arms == "hip" else (1, -1):
            arm(each, lower=around(50, 3), swing=around(-14, 3), twist=around(52, 4), elbow=around(84, 4), wrist=10)
    elif arms == "clasped":
        for each in (1, -1):
            arm(each, lower=73, swing=around(16, 2), twist=around(48, 3), elbow=around(46, 3), forearm=10)
    elif arms == "strap":
        arm(side, lower=around(66, 3), swing=around(16, 4), twist=around(16, 4), elbow=around(132, 4), forearm=10)
    elif arms == "call":
        arm(side, lower=around(48, 4), swing=around(26, 4), twist=around(6, 4), elbow=around(138, 3), forearm=-20)
        figure.look(side * around(6, 4), around(4, 4), -side * 6)
    elif arms == "wave":
        arm(side, lower=around(10, 5), swing=0, twist=around(-72, 6), elbow=around(88, 8), collar=-6)
    elif arms == "point":
        arm(side, lower=around(40, 4), swing=around(46, 5), twist=around(10, 4), elbow=around(16, 4), collar=0)
        figure.look(side * around(14, 4), 0)
