"""SMPL's constants: its joints and their tree, the codes of the sexes, and the framings of pictures of bodies."""

from __future__ import annotations

from typing import Literal

JOINTS: dict[str, int] = {
    "pelvis": 0, "left_hip": 1, "right_hip": 2, "spine1": 3, "left_knee": 4, "right_knee": 5, "spine2": 6,
    "left_ankle": 7, "right_ankle": 8, "spine3": 9, "left_foot": 10, "right_foot": 11, "neck": 12, "left_collar": 13,
    "right_collar": 14, "head": 15, "left_shoulder": 16, "right_shoulder": 17, "left_elbow": 18, "right_elbow": 19,
    "left_wrist": 20, "right_wrist": 21, "left_hand": 22, "right_hand": 23,
}  # fmt: skip
"""SMPL's 24 joints and their rows. "foot" is the ball of the foot, "hand" the knuckles."""

JOINT_NAMES: tuple[str, ...] = tuple(JOINTS)
NUM_JOINTS: int = len(JOINTS)

PARENTS: tuple[int, ...] = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""The parent of each joint, -1 for the root."""

ARM_JOINTS: tuple[int, ...] = tuple(
    JOINTS[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist", "hand") for side in ("left", "right")
)
LEG_JOINTS: tuple[int, ...] = tuple(
    JOINTS[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "foot") for side in ("left", "right")
)
"""Joints whose skin is an arm, a leg: left and right alternate from the trunk outwards."""

GENDERS: tuple[str, ...] = ("female", "male")
"""The words for the codes of `gender` arrays: 0 female, 1 male."""

MODEL_GENDERS: tuple[str, ...] = (*GENDERS, "neutral")
"""The sexes that body models come in."""

FEMALE, MALE = 0, 1

Framing = Literal["crop", "fixed"]
FRAMINGS: tuple[Framing, ...] = ("crop", "fixed")
"""`crop`: the body fills the picture, as in a detector's box. `fixed`: one scale for all, so that stature shows."""
