"""Shoes, hats and bags."""

from __future__ import annotations

import dataclasses

import numpy as np

from fastreid_clip3d.body.synthcc.figure import CANONICAL, NORMAL, REST, WEIGHTS, Figure
from fastreid_clip3d.body.synthcc.garments import BAG, HAT, SHOE, Piece, _cut_all, _smooth, rigid_piece
from fastreid_clip3d.body.synthcc.mesh_tools import grid_faces
from fastreid_clip3d.body.synthcc.outfit import Bag, Hat, Shoes

SOLE: float = 0.018
"""Metres from the foot's underside to the ground."""


@dataclasses.dataclass
class Hanging:
    """A thing that hangs straight down from a posed joint; points [V, 3] relative to the joint, world axes."""

    joint: int
    points: np.ndarray
    faces: np.ndarray


def make_shoes(figure: Figure, body: np.ndarray, shoes: Shoes) -> Piece:
    """Both shoes, and the socks above them, as one piece; the sole is flat on the ground of the T-pose."""
    marks = figure.marks
    shaft = marks.ankle + shoes.height + shoes.sock
    attributes, faces, edge = _cut_all(body, figure.foot_faces, lambda points: [shaft - points[:, 1]])
    points = attributes[:, CANONICAL]
    sock = points[:, 1] > marks.ankle + shoes.height
    offset = np.where(sock, 0.004, 0.010)
    rest = attributes[:, REST] + attributes[:, NORMAL] * offset[:, None]
    floor = body[:, REST][:, 1].min()
    low = _smooth((marks.floor + 0.030 - points[:, 1]) / 0.022)
    rest[:, 1] = rest[:, 1] * (1 - low) + (floor - SOLE) * low
    toes = _smooth((points[:, 2] - np.quantile(points[:, 2], 0.75)) / 0.06) * (points[:, 1] < marks.ankle)
    for side in (1, -1):  # toes become one rounded cap
        chosen = (points[:, 0] * side > 0) & (toes > 0)
        if chosen.any():
            middle = rest[chosen].mean(0)
            away = rest[chosen] - middle
            reach = np.maximum(np.linalg.norm(away / np.array([0.050, 0.030, 0.055]), axis=1, keepdims=True), 1e-3)
            rounded = middle + away / np.maximum(reach, 0.6) * np.minimum(1.0, np.maximum(reach, 0.6))
            rest[chosen] = rest[chosen] + (rounded - rest[chosen]) * 0.3 * toes[chosen, None]
    rest[:, 1] = np.maximum(rest[:, 1], floor - SOLE)
    attributes[:, REST] = rest
    return Piece(SHOE, attributes, edge.astype(np.float32), faces)


def make_hat(figure: Figure, body: np.ndarray, hat: Hat) -> list[Piece]:
    """A cap with a peak, a beanie, or a hat with a brim all round."""
    marks = figure.marks
    height = marks.crown - marks.chin
    depth = marks.head_front - marks.head_back
    front, back = (0.78, 0.50) if hat.kind == "cap" else (0.74, 0.48) if hat.kind == "beanie" else (0.76, 0.62)

    def field(points: np.ndarray) -> list[np.ndarray]:
        forward = (points[:, 2] - marks.head_back) / depth
        return [points[:, 1] - (marks.chin + height * (back + (front - back) * forward))]

    attributes, faces, edge = _cut_all(body, figure.head_faces, field)
    offset = {"cap": 0.013, "beanie": 0.018, "brim": 0.014}[hat.kind] + 0.010 * _smooth(edge / 0.06)
    attributes[:, REST] += attributes[:, NORMAL] * offset[:, None]
    pieces = [Piece(HAT, attributes, edge.astype(np.float32), faces)]
    head = attributes[:, REST]
    rim = head[edge < 0.015]
    if hat.kind != "beanie":
        middle = np.array([0.0, 0.0, (rim[:, 2].max() + rim[:, 2].min()) / 2])
        half_width, half_depth = np.abs(rim[:, 0]).max(), (rim[:, 2].max() - rim[:, 2].min()) / 2
        around = np.linspace(-1.15, 1.15, 15) if hat.kind == "cap" else np.linspace(-np.pi, np.pi, 25)
        grow = np.array([0.92, 1.12, 1.32, 1.50]) if hat.kind == "brim" else np.array([0.90, 1.15, 1.40, 1.62])
        angle, scale = np.meshgrid(around, grow, indexing="ij")
        if hat.kind == "cap":  # the peak is longest at the front
            scale = 1 + (scale - 1) * np.cos(angle / 1.15 * np.pi / 2) ** 0.5
        x = half_width * np.sin(angle) * np.where(hat.kind == "cap", np.minimum(scale, 1.05), scale)
        z = middle[2] + half_depth * np.cos(angle) * scale
        order = np.argsort(rim[:, 2])
        y = np.interp(np.clip(z, rim[:, 2].min(), rim[:, 2].max()), rim[order, 2], rim[order, 1]) + 0.004 - 0.10 * np.maximum(scale - 1, 0) ** 1.5
        pieces.append(rigid_piece(HAT, np.stack([x, y, z], -1).reshape(-1, 3), grid_faces(len(around), 4, False), {15: 1.0}))
    return pieces


def _box(centre: np.ndarray, half: tuple[float, float, float], roundness: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """A box with rounded edges as a grid over a sphere."""
    down, around = np.meshgrid(np.linspace(0.01, np.pi - 0.01, 13), np.linspace(0, 2 * np.pi, 24, endpoint=False), indexing="ij")
    unit = np.stack([np.sin(down) * np.sin(around), np.cos(down), np.sin(down) * np.cos(around)], -1).reshape(-1, 3)
    norm = (np.abs(unit) ** roundness).sum(1, keepdims=True) ** (1 / roundness)
    return centre + unit / norm * np.asarray(half), grid_faces(13, 24, True)


def make_bag(figure: Figure, body: np.ndarray, joints: np.ndarray, bag: Bag, outermost: float) -> tuple[list[Piece], list[Hanging]]:
    """A backpack, a bag at the hip on a strap, or one in the hand; `outermost`: offset of the outer garment."""
    marks = figure.marks
    if bag.kind == "hand":
        points, faces = _box(np.array([0.0, -0.30, 0.0]), (0.07, 0.13, 0.17))
        angle = np.linspace(0, np.pi, 9)
        arc = np.stack([np.zeros(9), -0.19 + 0.13 * np.sin(angle), 0.07 * np.cos(angle)], -1)
        turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
        handle = arc[:, None] + 0.010 * np.stack([np.cos(turn), 0 * turn, np.sin(turn)], -1)[None]
        faces = np.concatenate([faces, grid_faces(9, 6, True) + len(points)])
        return [], [Hanging(22, np.concatenate([points, handle.reshape(-1, 3)]), faces)]
    torso = body[(np.abs(body[:, 0]) < 0.1) & (np.abs(body[:, 1] - marks.chest) < 0.08)][:, REST]
    back = float(torso[:, 2].min()) - outermost
    if bag.kind == "backpack":
        centre = np.array([0.0, float(joints[9, 1]) - 0.03, back - 0.075])
        return [rigid_piece(BAG, *_box(centre, (0.145, 0.215, 0.085)), {9: 0.5, 6: 0.5})], []
    hip = body[(np.abs(body[:, 1] - marks.hip - 0.02) < 0.03) & (body[:, WEIGHTS.start + 20:WEIGHTS.start + 24].sum(1) < 0.1)][:, REST]
    centre = np.array([float(hip[:, 0].max()) + 0.045 + outermost, float(joints[1, 1]) + 0.0, float(hip[:, 2].mean())])
    return [rigid_piece(BAG, *_box(centre, (0.055, 0.105, 0.14)), {0: 1.0})], []
