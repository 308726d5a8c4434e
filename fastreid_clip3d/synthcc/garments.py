"""Tops, coats and trousers: regions of the body, cut out along clean lines and pushed away from the skin.

Every rule is a field over canonical coordinates that is positive where the garment is; the mesh is cut on the field's
zero line (:func:`~fastreid_clip3d.synthcc.mesh_tools.cut`), so hems, sleeves and necklines are lines, not steps.

Legend: V vertices, F faces; attribute columns as in :mod:`~fastreid_clip3d.synthcc.figure`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from fastreid_clip3d.body.constants import JOINTS
from fastreid_clip3d.synthcc.figure import (
    ARMS,
    CANONICAL,
    NORMAL,
    NUM_COLUMNS,
    REST,
    SIDES,
    SMOOTH,
    Figure,
    Landmarks,
    weight_of,
)
from fastreid_clip3d.synthcc.mesh_tools import cut, grid_faces
from fastreid_clip3d.synthcc.outfit import Legs, Top

SKIN, LEGWEAR, TOP, OUTER, SHOE, HAIR, HAT, BAG, SKIRT = range(9)
"""Parts: the rows of an outfit's table of materials."""
NUM_PARTS: int = 9


@dataclasses.dataclass
class Piece:
    """A part of a dressed person in the T-pose: attributes [V, 36], distance to the hem [V] in metres, faces [F, 3]."""

    part: int
    attributes: np.ndarray
    edge: np.ndarray
    faces: np.ndarray


def smooth_step(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and a curve without corners between."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def neck_field(top: Top, marks: Landmarks, points: np.ndarray) -> np.ndarray:
    """Positive below the neckline; `points` canonical [V, 3]."""
    x, y, z = points.T
    forward = z - marks.neck_depth
    front = smooth_step((forward - 0.0) / 0.05)
    limit = marks.neck + 0.022 - 0.50 * forward
    width = np.full_like(x, 0.085)
    if top.neck == "turtle":
        limit = limit + 0.055
    elif top.neck == "collar":
        limit = limit + 0.028
        notch = marks.neck - 0.075
        width = np.where(front > 0.5, np.clip(0.034 * (y - notch) / 0.09, 0.0, 0.09), width)
        limit = np.where(front > 0.5, np.where(np.abs(x) < width, notch - 0.01, limit), limit)
        beside = np.minimum(np.abs(x) - width, marks.neck + 0.05 - 0.5 * forward - y)
        return np.where(front > 0.5, np.maximum(limit - y, beside), limit - y)
    elif top.neck == "scoop":
        limit = limit - 0.085 * front * np.sqrt(np.clip(1 - (x / 0.11) ** 2, 0, 1)) - 0.012
        width = np.full_like(x, 0.115)
    elif top.neck == "v":
        tip = marks.neck - 0.135
        width = np.where(front > 0.3, np.clip(0.10 * (y - tip) / 0.15, 0, 0.10), 0.09)
        limit = np.where(front > 0.3, tip, limit)
    else:
        limit = limit - 0.02 * front
    return np.maximum(limit - y, np.abs(x) - width)


def top_field(top: Top, marks: Landmarks, points: np.ndarray) -> list[np.ndarray]:
    """Fields, each positive where the garment is: hem, sleeves, neckline and, if open, the front; `points` canonical
    [V, 3]."""
    x, y, z = points.T
    if top.sleeve < 0:
        ends = marks.shoulder_x - 0.005 + top.sleeve * 0.3 + 0.18 * np.clip(y - marks.shoulder, -0.1, 0.1) - np.abs(x)
        ends = np.maximum(ends, marks.shoulder - 0.10 - y)
    else:
        ends = marks.shoulder_x + top.sleeve * (marks.wrist_x - marks.shoulder_x) - np.abs(x)
    fields = [y - (marks.hip + top.hem), ends, neck_field(top, marks, points)]
    if top.opening:
        half = top.opening * (0.55 + 0.45 * np.clip((marks.neck - y) / 0.3, 0, 1.3))
        fields.append(np.where(z > marks.neck_depth - 0.03, np.abs(x) - half, np.abs(x) + 0.3))
    return fields


def legs_field(legs: Legs, marks: Landmarks, points: np.ndarray) -> list[np.ndarray]:
    """Fields, each positive where the trousers are: waist and hem; `points` canonical [V, 3]."""
    y = points[:, 1]
    share = legs.hem
    hem = marks.ankle + min(share, 1) * (marks.knee - marks.ankle) + max(share - 1, 0) * (marks.hip - marks.knee)
    return [marks.hip + legs.waist - y, y - hem]


def cut_out(
    attributes: np.ndarray, faces: np.ndarray, rule: Callable[[np.ndarray], list[np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts a submesh by every field of `rule(canonical points)`; also gives the distance to the nearest cut [V]."""
    return cut(attributes, faces, attributes[:, CANONICAL], rule)


def make_top(figure: Figure, body: np.ndarray, joints: np.ndarray, top: Top, part: int) -> Piece:
    """The piece of a top or coat above its hem, from attributes [V, 36] and T-pose joints [24, 3] of a body."""
    marks = figure.marks
    attributes, faces, edge = cut_out(body, figure.upper_faces, lambda points: top_field(top, marks, points))
    points, rest, normal = attributes[:, CANONICAL], attributes[:, REST], attributes[:, NORMAL]
    arm = attributes[:, ARMS].sum(1)
    above = smooth_step((points[:, 1] - marks.neck + 0.01) / 0.04)
    offset = np.full(len(rest), top.offset, dtype=np.float32) + 0.004 * above * (top.neck in ("collar", "turtle"))
    cuff = smooth_step(1 - edge / 0.05) * (top.sleeve >= 0.9) * (arm > 0.5) * (not top.opening)
    offset = np.maximum(offset * (1 - 0.45 * cuff), 0.003)
    rest = spanned(attributes, edge, 1.0 if top.offset > 0.007 else 0.5) + normal * offset[:, None]
    rest = _hang_torso(rest, points, arm, marks, drape=top.drape)
    rest = _hang_sleeves(rest, arm, joints, drape=top.sleeve_drape, offset=top.offset)
    attributes[:, REST] = rest
    if top.length:  # the cloth goes on below
        edge = np.min(top_field(top, marks, points)[1:], axis=0)
    return Piece(part, attributes, edge.astype(np.float32), faces)


def spanned(attributes: np.ndarray, edge: np.ndarray, amount: float) -> np.ndarray:
    """The surface cloth lies on [V, 3]: it bridges hollows instead of following them, less so next to a hem."""
    rest, smooth, normal = attributes[:, REST], attributes[:, SMOOTH], attributes[:, NORMAL]
    outside = np.maximum(((rest - smooth) * normal).sum(1, keepdims=True), 0)
    return rest + (smooth + 0.7 * outside * normal - rest) * (amount * smooth_step(0.25 + edge / 0.05)[:, None])


def _hang_torso(rest: np.ndarray, points: np.ndarray, arm: np.ndarray, marks: Landmarks, drape: float) -> np.ndarray:
    """Cloth falls from the widest part of the chest instead of following waist and belly."""
    band = (arm < 0.3) & (np.abs(points[:, 1] - marks.chest) < 0.05)
    if drape <= 0 or band.sum() < 8:
        return rest
    half_width = np.abs(rest[band, 0]).max()
    front, back = rest[band, 2].max(), rest[band, 2].min()
    middle, half_depth = (front + back) / 2, (front - back) / 2
    radius = np.sqrt((rest[:, 0] / half_width) ** 2 + ((rest[:, 2] - middle) / half_depth) ** 2)
    amount = drape * smooth_step((marks.chest + 0.02 - points[:, 1]) / 0.12) * smooth_step(1 - arm / 0.3)
    stretch = 1 + np.maximum(0.95 / np.maximum(radius, 0.2) - 1, 0) * amount
    stretch = np.minimum(stretch, 1.6)
    moved = rest.copy()
    moved[:, 0] *= stretch
    moved[:, 2] = middle + (rest[:, 2] - middle) * stretch
    return moved


def _hang_sleeves(rest: np.ndarray, arm: np.ndarray, joints: np.ndarray, drape: float, offset: float) -> np.ndarray:
    """Sleeves keep a width of their own where the arm is thin."""
    if drape <= 0:
        return rest
    moved = rest.copy()
    for side, word in SIDES:
        path = joints[[JOINTS[f"{word}_{name}"] for name in ("shoulder", "elbow", "wrist")]]
        chosen = (arm > 0.35) & (rest[:, 0] * side > 0)
        if not chosen.any():
            continue
        x = rest[chosen, 0] * side
        path_x = path[:, 0] * side
        axis = np.stack([np.interp(x, path_x, path[:, c]) for c in (1, 2)], 1)
        away = rest[chosen, 1:] - axis
        radius = np.maximum(np.linalg.norm(away, axis=1), 1e-4)
        share = np.clip((x - path_x[0]) / (path_x[2] - path_x[0]), 0, 1)
        wanted = (0.058 - 0.014 * share + offset * 0.5) * (0.55 + 0.55 * drape)
        amount = smooth_step((share - 0.02) / 0.2)
        scale = 1 + np.maximum(wanted / radius - 1, 0) * amount
        moved[chosen, 1:] = axis + away * scale[:, None]
    return moved


def make_legs(figure: Figure, body: np.ndarray, joints: np.ndarray, legs: Legs) -> Piece:
    """Trousers, shorts, leggings or tights."""
    marks = figure.marks
    attributes, faces, edge = cut_out(body, figure.lower_faces, lambda points: legs_field(legs, marks, points))
    points = attributes[:, CANONICAL]
    rest = spanned(attributes, edge, 1.0 if legs.width > 0 else 0.3) + attributes[:, NORMAL] * legs.offset
    if legs.width > 0:
        for side, word in SIDES:
            path = joints[[JOINTS[f"{word}_{name}"] for name in ("ankle", "knee", "hip")]]
            chosen = (points[:, 0] * side > 0) & (points[:, 1] < marks.hip)
            y = rest[chosen, 1]
            heights = path[:, 1]
            axis = np.stack([np.interp(y, heights, path[:, c]) for c in (0, 2)], 1)
            away = rest[chosen][:, [0, 2]] - axis
            radius = np.maximum(np.linalg.norm(away, axis=1), 1e-4)
            place = (heights[2] - y) / (heights[2] - heights[0])
            upper = (place > 0.32) & (place < 0.42)
            thigh = np.median(radius[upper]) if upper.any() else 0.085
            width = 1 + (legs.width - 1) * np.clip(place, 0, 1) if legs.width > 1 else legs.width
            wanted = thigh * (1.0 - 0.30 * np.clip(place, 0, 1)) * width
            scale = 1 + np.maximum(wanted / radius - 1, 0) * smooth_step((place - 0.16) / 0.2)
            rest[np.ix_(chosen, np.array([0, 2]))] = axis + away * scale[:, None]
    attributes[:, REST] = rest
    return Piece(LEGWEAR, attributes, edge.astype(np.float32), faces)


def without_hidden(piece: Piece, hidden: np.ndarray) -> Piece:
    """The piece without faces that lie deep below another garment; `hidden` [V]: metres inside it."""
    return _shown(piece.part, piece.attributes, piece.edge, piece.faces[(hidden[piece.faces] < 0.03).any(1)])


def _shown(part: int, attributes: np.ndarray, edge: np.ndarray, faces: np.ndarray) -> Piece:
    """A piece of these faces, without unused vertices."""
    used = np.zeros(len(attributes), dtype=bool)
    used[faces] = True
    rows = np.flatnonzero(used)
    return Piece(part, attributes.take(rows, 0), edge[rows], (np.cumsum(used) - 1)[faces])


def make_skin(body: np.ndarray, faces: np.ndarray, covered: np.ndarray) -> Piece:
    """What of the body may be seen; `covered` [V]: metres inside the clothes. Faces deep below cloth are left out."""
    return _shown(SKIN, body, covered, faces[(covered[faces] < 0.025).any(1)])


def make_hood(figure: Figure, body: np.ndarray, part: int) -> Piece:
    """A hood lying on the shoulders behind the neck: a soft half ring."""
    marks = figure.marks
    ring = (np.abs(body[:, 1] - marks.neck) < 0.02) & (np.abs(body[:, 0]) < 0.12)
    rest = body[ring, REST]
    centre = np.array([0.0, float(rest[:, 1].mean()) + 0.012, float(rest[:, 2].mean()) - 0.012])
    turns = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    angle, turn = np.meshgrid(np.linspace(-2.2, 2.2, 22), turns, indexing="ij")
    thick = 0.030 + 0.022 * np.cos(angle / 2.2 * np.pi / 2) ** 0.5
    reach = 0.078 + 0.02 * np.cos(angle / 2) + thick * np.cos(turn)
    up = thick * np.sin(turn) * 0.95 - 0.035 * (1 - np.cos(angle)) * 0.5
    rest = centre + np.stack([np.sin(angle) * reach * 1.12, up, -np.cos(angle) * reach], -1)
    return rigid_piece(part, rest.reshape(-1, 3), grid_faces(22, 10, True), {"spine3": 0.7, "neck": 0.3})


def rigid_piece(part: int, rest: np.ndarray, faces: np.ndarray, weights: dict[str, float]) -> Piece:
    """A piece that moves as a whole, by its weight of each joint.

    The vertices `rest` [V, 3] in the T-pose serve as canonical coordinates, too; the faces may have either orientation.
    """
    attributes = np.zeros((len(rest), NUM_COLUMNS), dtype=np.float32)
    attributes[:, CANONICAL] = attributes[:, REST] = rest
    corners = rest[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if (cross * (corners.mean(1) - rest.mean(0))).sum() < 0:  # turned inside out
        faces = faces[:, ::-1]
    for joint, weight in weights.items():
        attributes[:, weight_of(joint)] = weight
    return Piece(part, attributes, np.full(len(rest), 0.1, dtype=np.float32), faces)
