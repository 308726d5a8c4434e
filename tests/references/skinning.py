"""Linear blend skinning one vertex and one joint at a time, from the definition."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def pose_body(
    vertices: np.ndarray, joints: np.ndarray, parents: list[int], weights: np.ndarray, pose: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Posed vertices [V, 3] and joints [J, 3] of a T-posed body; `pose` [J, 3] is axis-angle relative to the parent."""
    world = []
    for joint, parent in enumerate(parents):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_rotvec(pose[joint]).as_matrix()
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0.0)
        world.append(local if parent < 0 else world[parent] @ local)
    posed = np.zeros_like(vertices)
    for joint, transform in enumerate(world):
        moved = (vertices - joints[joint]) @ transform[:3, :3].T + transform[:3, 3]
        posed += weights[:, joint : joint + 1] * moved
    return posed, np.array([transform[:3, 3] for transform in world])
