"""Posing a dressed person: skinning by SMPL's tree, feet on the ground, then what hangs.

Legend: V vertices, J = 24 joints.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fastreid_clip3d.synthcc.dressing import Dressed
from fastreid_clip3d.synthcc.figure import both
from fastreid_clip3d.synthcc.garments import BAG
from fastreid_clip3d.synthcc.mesh_tools import vertex_normals
from fastreid_clip3d.synthcc.skirts import hang


@dataclasses.dataclass
class Posed:
    """World geometry of one image, metres."""

    vertices: np.ndarray  # float32 [V, 3]
    normals: np.ndarray  # float32 [V, 3], of length 1
    canonical: np.ndarray  # float32 [V, 3], places on the average body in the T-pose
    edge: np.ndarray  # float32 [V], distance to the garment's hem
    faces: np.ndarray  # int64 [F, 3]
    face_part: np.ndarray  # int64 [F], the part that each face belongs to
    feet: np.ndarray  # [2, 2], where the left and the right foot touch the floor (x, z)


def rotations(axis_angle: np.ndarray) -> np.ndarray:
    """Rotation matrices [J, 3, 3] of axis-angle vectors [J, 3] in radians (Rodrigues)."""
    angle = np.linalg.norm(axis_angle, axis=1, keepdims=True)
    axis = axis_angle / np.maximum(angle, 1e-8)
    cross = np.zeros((len(axis), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross = cross - cross.transpose(0, 2, 1)
    angle = angle[..., None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def joint_transforms(
    pose: np.ndarray, joints: np.ndarray, parents: list[int], heading: float
) -> tuple[np.ndarray, np.ndarray]:
    """Transforms [J, 3, 4] from the T-pose, with joints [J, 3], to the world, and posed joints [J, 3].

    `pose` [72] is axis-angle, `heading` the turn about the vertical, both in radians.
    """
    local = rotations(pose.reshape(-1, 3))
    turn = np.array([[np.cos(heading), 0, np.sin(heading)], [0, 1, 0], [-np.sin(heading), 0, np.cos(heading)]])
    turns, places = [turn @ local[0]], [turn @ joints[0]]
    for joint, parent in enumerate(parents[1:], start=1):
        turns.append(turns[parent] @ local[joint])
        places.append(places[parent] + turns[parent] @ (joints[joint] - joints[parent]))
    world, posed = np.stack(turns), np.stack(places)
    offset = posed - np.einsum("jab,jb->ja", world, joints)
    return np.concatenate([world, offset[..., None]], -1), posed


def pose_person(person: Dressed, pose: np.ndarray, heading: float) -> Posed:
    """Poses a dressed person; the lowest point stands on y = 0, the pelvis above the origin.

    `pose` [72] is axis-angle in radians, `heading` in degrees about the vertical.
    """
    transforms, joints = joint_transforms(pose, person.joints, person.figure.parents, np.deg2rad(heading))
    flat, turn = transforms.reshape(-1, 12).astype(np.float32), transforms[0, :, :3]
    blended = flat.T @ person.weights.T
    vertices, normals = _moved(blended, person.rest), _turned(blended, person.normals)
    drop = np.array([joints[0, 0], vertices[:, 1].min(), joints[0, 2]], dtype=np.float32)
    vertices, joints = vertices - drop, joints - drop
    parts: list[tuple[np.ndarray, ...]] = [
        (vertices, normals, person.canonical, person.edge, person.faces, person.face_part)
    ]
    if person.tubes:
        below = _moved(flat.T @ person.below_weights.T, person.below_rest) - drop
        hips = both(joints, "hip").mean(0)
        leg_length = float(both(person.joints, "hip")[:, 1].mean() - both(person.joints, "ankle")[:, 1].mean())
        below_inner = np.empty((0, 3))
        for tube in person.tubes:
            # A coat goes around a dress too, but not at the waist, where it must fit below its own upper part.
            low = below_inner[below_inner[:, 1] - hips[1] < tube.start - 0.13]
            around = np.concatenate([below, low])
            hung = hang(tube, around, hips, joints[0], turn, leg_length, person.figure.marks)
            below_inner = np.concatenate([below_inner, hung.vertices])
            parts.append(_part(hung.vertices, hung.canonical, hung.edge, hung.faces, tube.part))
    for thing in person.hanging:
        upright = np.array([[turn[0, 0], 0, turn[2, 0]], [0, 1, 0], [turn[0, 2], 0, turn[2, 2]]])
        points = thing.points @ upright + joints[thing.joint]
        parts.append(_part(points, thing.points, np.full(len(points), 0.1), thing.faces, BAG))
    starts = np.cumsum([0, *(len(part[0]) for part in parts)])
    feet = ((both(joints, "ankle") + both(joints, "foot")) / 2)[:, [0, 2]]
    vertices, normals, canonical, edge, _, face_part = map(np.concatenate, zip(*parts))
    faces = np.concatenate([part[4] + start for part, start in zip(parts, starts)])
    vertices, normals, canonical, edge = (a.astype(np.float32) for a in (vertices, normals, canonical, edge))
    return Posed(vertices, normals, canonical, edge, faces, face_part, feet)


def _turned(blended: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors [V, 3] turned by their blended transforms [12, V], whose rows are those of 3 x 4 matrices."""
    x, y, z = np.ascontiguousarray(vectors.T)
    return np.stack([row[0] * x + row[1] * y + row[2] * z for row in blended.reshape(3, 4, -1)], 1)


def _moved(blended: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [V, 3] turned and shifted by their blended transforms [12, V]."""
    return _turned(blended, points) + blended[3::4].T


def _part(
    vertices: np.ndarray, canonical: np.ndarray, edge: np.ndarray, faces: np.ndarray, part: int
) -> tuple[np.ndarray, ...]:
    return vertices, vertex_normals(vertices, faces), canonical, edge, faces, np.full(len(faces), part)
