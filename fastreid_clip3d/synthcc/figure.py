"""The naked body as material for clothes: landmarks of the average body, and one person's T-pose in the same topology.

The rules of garments ("the sleeve ends here") read canonical coordinates, the place of a point on the average body, so
that one rule fits every shape. The garment itself is the person's own T-pose, pushed outwards.

Legend: V vertices, F faces. Columns of an attribute matrix [V, 36]: canonical 0:3, rest 3:6, normal 6:9, weights 9:33,
smooth 33:36 (the T-pose without its small forms, as cloth spans them).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import scipy.sparse
import torch

from fastreid_clip3d.body.constants import ARM_JOINTS, GENDERS, JOINTS, LEG_JOINTS
from fastreid_clip3d.body.model import BodyModel, load_body_model
from fastreid_clip3d.common.threads import one_thread
from fastreid_clip3d.synthcc.mesh_tools import vertex_normals

CANONICAL, REST, NORMAL, WEIGHTS, SMOOTH = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 33), slice(33, 36)
NUM_COLUMNS = 36
HANDS = [JOINTS["left_hand"], JOINTS["right_hand"]]
SMOOTHING_STEPS = 12
ARMS = [WEIGHTS.start + joint for joint in ARM_JOINTS]
SIDES = ((1, "left"), (-1, "right"))
"""The sign of x and the first word of the joints of both sides of a body."""


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """Places on the average body in the T-pose; metres. Heights unless the name says otherwise."""

    floor: float
    ankle: float
    knee: float
    crotch: float
    hip: float
    chest: float
    neck: float
    neck_depth: float  # z of the neck joint
    shoulder: float
    shoulder_x: float
    wrist_x: float
    chin: float
    crown: float
    head_back: float  # z
    head_front: float  # z, without the nose


def weight_of(joint: str) -> int:
    """The column of an attribute matrix that holds the skinning weights of a joint."""
    return WEIGHTS.start + JOINTS[joint]


def both(joints: np.ndarray, name: str) -> np.ndarray:
    """The left and the right joint of a name, [2, 3], from joints [24, 3]."""
    return joints[[JOINTS[f"left_{name}"], JOINTS[f"right_{name}"]]]


class Figure:
    """A body model of one sex, prepared for dressing."""

    def __init__(self, body_model: BodyModel) -> None:
        self.model = body_model
        self._last: tuple[bytes, tuple[np.ndarray, np.ndarray]] | None = None
        self.faces = body_model.faces.numpy().astype(np.int64)
        self.weights = body_model.weights.numpy().astype(np.float32)
        self.parents = [int(parent) for parent in body_model.parents]
        template = body_model.v_template.numpy()
        self.template = template.astype(np.float32)
        joints = body_model.joints(body_model.v_template[None])[0].numpy()
        self.marks = _landmarks(template, joints, self.weights)
        height = self.template[:, 1]
        arm = self.weights[:, ARM_JOINTS].sum(1)
        leg = self.weights[:, LEG_JOINTS].sum(1)
        marks = self.marks
        self.upper_faces = self._faces_of(
            (height > marks.crotch - 0.12) & (self.weights[:, HANDS].sum(1) < 0.5) & (height < marks.chin + 0.02)
        )
        self.lower_faces = self._faces_of((height < marks.hip + 0.25) & (arm < 0.05))
        self.foot_faces = self._faces_of((height < marks.knee) & (leg > 0.5))
        self.head_faces = self._faces_of(
            (self.weights[:, [JOINTS["neck"], JOINTS["head"]]].sum(1) > 0.5) & (height > marks.neck)
        )
        # Smoothing is linear, so a person's smooth body is a mix of smooth directions.
        bodies = np.concatenate([template[..., None], body_model.shapedirs.numpy()], -1).astype(np.float64)
        smooth = _smoothed(bodies.reshape(len(template), -1), self.faces)
        self._smooth = smooth.reshape(bodies.shape).astype(np.float32)
        self.below = np.flatnonzero((height < marks.hip + 0.22) & (arm < 0.05))
        """Vertices a skirt must go around."""

    def _faces_of(self, vertices: np.ndarray) -> np.ndarray:
        return self.faces[vertices[self.faces].all(1)]

    def attributes(self, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Attribute matrix [V, 36] and T-pose joints [24, 3] of a person's body."""
        key = np.asarray(betas, dtype=np.float32).tobytes()
        if self._last is None or self._last[0] != key:  # outfits of one person come one after the other
            self._last = key, self._attributes(betas)
        return self._last[1]

    def _attributes(self, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vertices = self.model.shape(torch.as_tensor(betas, dtype=torch.float32)[None])
        joints = self.model.joints(vertices)[0].numpy()
        rest = vertices[0].numpy()
        smooth = self._smooth @ np.concatenate([[1], betas]).astype(np.float32)
        normals = vertex_normals(smooth, self.faces).astype(np.float32)
        # Only along the normal: a shift within the surface would bend the stripes of a shirt.
        smooth = rest + normals * ((smooth - rest) * normals).sum(1, keepdims=True)
        return np.concatenate([self.template, rest, normals, self.weights, smooth], axis=1), joints


def _smoothed(values: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Values [V, D] of a surface's vertices without their small forms, by steps towards the mean of the neighbours."""
    means = _neighbour_means(faces, len(values))
    for step in range(SMOOTHING_STEPS):
        # Steps back follow (Taubin), because smoothing alone would thin the limbs.
        values = values + 0.6 * (means @ values - values)
        if step % 2:
            values = values - 0.5 * (means @ values - values)
    return values


def _neighbour_means(faces: np.ndarray, count: int) -> scipy.sparse.csr_matrix:
    """Matrix [V, V] that replaces each vertex by the mean of its neighbours."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    ones = np.ones(len(edges), dtype=np.float32)
    graph = scipy.sparse.csr_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(count, count))
    return (scipy.sparse.diags(1 / np.maximum(np.asarray(graph.sum(1)).ravel(), 1)) @ graph).tocsr().astype(np.float32)


@functools.lru_cache(maxsize=4)
def load_figure(gender: int) -> Figure:
    """The embedded body of sex 0 (female) or 1 (male), prepared once per process, with one thread."""
    with one_thread():  # its sums decide pixels
        return Figure(load_body_model(gender=GENDERS[gender]))


def _landmarks(template: np.ndarray, joints: np.ndarray, weights: np.ndarray) -> Landmarks:
    head = template[weights[:, JOINTS["head"]] > 0.9]
    knee, hip = joints[JOINTS["left_knee"], 1], joints[JOINTS["left_hip"], 1]
    inner = template[(np.abs(template[:, 0]) < 0.015) & (template[:, 1] > knee) & (template[:, 1] < hip + 0.1)]
    face = head[np.abs(head[:, 0]) > 0.03]
    return Landmarks(
        floor=float(template[:, 1].min()),
        ankle=float(both(joints, "ankle")[:, 1].mean()),
        knee=float(both(joints, "knee")[:, 1].mean()),
        crotch=float(inner[:, 1].min()),
        hip=float(both(joints, "hip")[:, 1].mean()),
        chest=float(joints[JOINTS["spine3"], 1]),
        neck=float(joints[JOINTS["neck"], 1]),
        neck_depth=float(joints[JOINTS["neck"], 2]),
        shoulder=float(both(joints, "shoulder")[:, 1].mean()),
        shoulder_x=float(np.abs(both(joints, "shoulder")[:, 0]).mean()),
        wrist_x=float(np.abs(both(joints, "wrist")[:, 0]).mean()),
        chin=float(head[head[:, 2] > np.quantile(head[:, 2], 0.8)][:, 1].min()),
        crown=float(head[:, 1].max()),
        head_back=float(head[:, 2].min()),
        head_front=float(face[:, 2].max()),
    )
