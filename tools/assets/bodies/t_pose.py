"""Rotations that take anny's rest pose to the T-pose.

Shape letters: N bodies, B anny's bones.
"""

from __future__ import annotations

import numpy as np

from tools.assets.bodies.bones import FINGERS, KNUCKLES, METACARPALS

LEG_ABDUCTION_DEGREES = 2.5
"""Angle between the line from hip to ankle and the vertical in the T-pose."""

CLAVICLE_RAISE_DEGREES = 10.0
SHOULDER_RAISE_DEGREES = 8.0
"""The shoulder girdle rises with the arms; without this the skin at the armpit tears."""


def t_pose_rotations(heads: np.ndarray, bone: dict[str, int]) -> np.ndarray:
    """Rotations [N, B, 3, 3] that take anny's rest pose (arms down, elbows bent, palms in) to the T-pose.

    `heads` [N, B, 3] are the bones' origins in the rest pose. In the T-pose the arms lie along x with the palms down,
    the hinges of the elbows and the legs are nearly vertical, and everything else keeps its pose.
    """
    turns = np.tile(np.eye(3), (*heads.shape[:2], 1, 1))

    def at(label: str) -> np.ndarray:
        return heads[:, bone[label]]

    def turn(labels: tuple[str, ...], rotation: np.ndarray) -> None:
        for label in labels:
            turns[:, bone[label]] = rotation

    for side, sign in (("L", 1.0), ("R", -1.0)):
        outward = np.array([sign, 0.0, 0.0])
        clavicle = _about_axis(np.array([0.0, 0.0, sign]), np.deg2rad(CLAVICLE_RAISE_DEGREES))
        shoulder = _about_axis(np.array([0.0, 0.0, sign]), np.deg2rad(CLAVICLE_RAISE_DEGREES + SHOULDER_RAISE_DEGREES))
        turn((f"clavicle.{side}",), clavicle)
        turn((f"shoulder01.{side}",), shoulder)

        upper = at(f"lowerarm01.{side}") - at(f"upperarm01.{side}")
        lower = at(f"wrist.{side}") - at(f"lowerarm01.{side}")
        hinge = np.cross(upper, lower)
        upper_turn = _frame(outward, np.array([0.0, -sign, 0.0])) @ _frame(upper, hinge).swapaxes(-1, -2)
        turn((f"upperarm01.{side}", f"upperarm02.{side}"), upper_turn)

        straight = _between(_apply(upper_turn, lower), outward) @ upper_turn
        knuckles = np.mean([at(f"{label}.{side}") for label in KNUCKLES], axis=0)
        across = at(f"finger2-1.{side}") - at(f"finger5-1.{side}")  # thumb side minus little finger's side
        flat = _between(_apply(straight, knuckles - at(f"wrist.{side}")), outward) @ straight
        across = _apply(flat, across)
        roll = np.arctan2(sign * across[..., 1], across[..., 2])  # about `outward`, until `across` points to the front
        turn((f"lowerarm01.{side}",), _about_axis(outward, 0.3 * roll) @ straight)
        turn((f"lowerarm02.{side}",), _about_axis(outward, 0.75 * roll) @ straight)
        hand = (f"wrist.{side}", *(f"{label}.{side}" for label in FINGERS + METACARPALS))
        turn(hand, _about_axis(outward, roll) @ flat)

        lean = np.deg2rad(LEG_ABDUCTION_DEGREES)
        down = np.array([sign * np.sin(lean), -np.cos(lean), 0.0])
        leg = _between(at(f"foot.{side}") - at(f"upperleg01.{side}"), down)
        turn(tuple(f"{label}.{side}" for label in ("upperleg01", "upperleg02", "lowerleg01", "lowerleg02")), leg)
    return turns


def _apply(rotation: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum("...ij,...j->...i", rotation, vectors)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _about_axis(axis: np.ndarray, angle: float | np.ndarray) -> np.ndarray:
    """Rotations [..., 3, 3] about one unit axis by angles [...] (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.asarray(angle)[..., None, None]
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)


def _between(vectors: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotations [N, 3, 3] that turn `vectors` [N, 3] to the unit vector `target`."""
    unit = _unit(vectors)
    normal = np.cross(unit, target)
    cross = np.zeros((*normal.shape, 3))
    for (row, column), part in zip(((2, 1), (0, 2), (1, 0)), np.moveaxis(normal, -1, 0)):
        cross[..., row, column], cross[..., column, row] = part, -part
    cosine = (unit @ target)[..., None, None]
    return np.eye(3) + cross + cross @ cross / (1.0 + cosine)


def _frame(direction: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Right-handed frames [..., 3, 3] whose first column is `direction`, the second `normal` made orthogonal to it."""
    first = _unit(direction)
    second = _unit(normal - (normal * first).sum(-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-1)
