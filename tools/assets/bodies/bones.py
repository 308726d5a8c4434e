"""Which of anny's bones belong to each SMPL joint."""

from __future__ import annotations

# For each SMPL joint: the anny bones whose heads are averaged for its position, and the bones whose skin follows it.
KNUCKLES = ("finger2-1", "finger3-1", "finger4-1", "finger5-1")
FINGERS = tuple(f"finger{f}-{p}" for f in range(1, 6) for p in range(1, 4))
METACARPALS = tuple(f"metacarpal{f}" for f in range(1, 5))
_TOES = ("toe1-1", "toe1-2", *(f"toe{t}-{p}" for t in range(2, 6) for p in range(1, 4)))
_CENTRE_JOINTS = {
    0: (("root",), ("root", "pelvis.L", "pelvis.R", "spine05")),
    3: (("spine04",), ("spine04", "spine03")),
    6: (("spine02",), ("spine02",)),
    9: (("spine01",), ("spine01",)),
    12: (("neck01",), ("neck01", "neck02", "neck03")),
    15: (("head",), ("head", "eye.L", "eye.R")),
}
_LEFT_JOINTS = {
    1: (("upperleg01",), ("upperleg01", "upperleg02")),
    4: (("lowerleg01",), ("lowerleg01", "lowerleg02")),
    7: (("foot",), ("foot",)),
    10: (tuple(f"toe{t}-1" for t in range(1, 6)), _TOES),
    13: (("clavicle",), ("clavicle", "shoulder01")),
    16: (("upperarm01",), ("upperarm01", "upperarm02")),
    18: (("lowerarm01",), ("lowerarm01", "lowerarm02")),
    20: (("wrist",), ("wrist", *METACARPALS)),
    22: (KNUCKLES, FINGERS),
}


def joint_bones() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The 24 pairs (bones that place the joint, bones that follow it) in SMPL's order of joints."""
    joints = dict(_CENTRE_JOINTS)
    for left, (heads, skin) in _LEFT_JOINTS.items():
        for joint, side in ((left, "L"), (left + 1, "R")):
            joints[joint] = (tuple(f"{b}.{side}" for b in heads), tuple(f"{b}.{side}" for b in skin))
    return [joints[j] for j in range(24)]
