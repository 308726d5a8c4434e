"""Hair: a cap on the scalp with a hairline, and what hangs or stands off it."""

from __future__ import annotations

import numpy as np

from fastreid_clip3d.synthcc.figure import CANONICAL, NORMAL, REST, Figure, Landmarks, weight_of
from fastreid_clip3d.synthcc.garments import HAIR, Piece, cut_out, rigid_piece, smooth_step
from fastreid_clip3d.synthcc.mesh_tools import grid_faces, sphere_grid
from fastreid_clip3d.synthcc.person import Appearance

THICKNESS: dict[str, float] = {
    "buzz": 0.004, "short": 0.014, "fringe": 0.017, "bob": 0.022, "long": 0.020, "ponytail": 0.011, "bun": 0.011,
    "afro": 0.055,
}  # fmt: skip


def scalp_field(points: np.ndarray, marks: Landmarks, style: str, hairline: float) -> np.ndarray:
    """Positive on the scalp; `points` canonical [V, 3]."""
    x, y, z = points.T
    height = marks.crown - marks.chin
    depth = marks.head_front - marks.head_back
    forward = (z - marks.head_back) / depth  # 0 at the back of the head, 1 at the face
    nape, ear = marks.chin + 0.22 * height, marks.chin + 0.46 * height
    brow = marks.chin + (0.76 - 0.06 * (style == "fringe")) * height
    line = [nape, nape + 0.02, ear, ear + 0.02, brow - 0.01, brow]
    limit = np.interp(forward, [0.0, 0.35, 0.52, 0.72, 0.86, 1.0], line)
    temples = 0.02 * smooth_step((np.abs(x) - 0.045) / 0.02) * smooth_step((forward - 0.7) / 0.15)
    uneven = 0.003 * np.sin(130 * x + 40 * z) + 0.003 * np.sin(210 * z - 90 * x)
    return y - limit - hairline + temples * 0.3 + uneven


def make_hair(
    figure: Figure, body: np.ndarray, look: Appearance, under_hat: bool, over_hood: bool, outermost: float
) -> list[Piece]:
    """The pieces of a hair style; `body` are attributes [V, 36].

    Hair hangs outside the clothes, `outermost` metres from the skin. It lies flat under a hat, and over a hood it ends
    at the neck.
    """
    if look.style == "bald":
        return []
    marks = figure.marks
    attributes, faces, edge = cut_out(
        body, figure.head_faces, lambda points: [scalp_field(points, marks, look.style, look.hairline)]
    )
    thickness = THICKNESS[look.style]
    if under_hat:
        thickness = min(thickness, 0.008)
    rise = 0.25 + 0.75 * smooth_step(edge / (0.02 + 0.8 * thickness))
    up = smooth_step((attributes[:, CANONICAL][:, 1] - marks.chin) / (marks.crown - marks.chin))
    amount = thickness * rise * (0.7 + 0.45 * up)
    attributes[:, REST] += attributes[:, NORMAL] * amount[:, None]
    pieces = [Piece(HAIR, attributes, np.full(len(attributes), 0.1, dtype=np.float32), faces)]
    head = body[body[:, weight_of("head")] > 0.9, REST]
    box = head.min(0), head.max(0)
    if look.style in ("bob", "long"):
        style = "bob" if over_hood else look.style
        pieces.append(_curtain(figure, body, box, style, thickness=thickness, outermost=outermost))
    elif look.style == "ponytail":
        pieces.append(_tail(box))
    elif look.style == "bun" and not under_hat:
        centre = np.array([0.0, box[1][1] - 0.05, box[0][2] - 0.012])
        ball, ball_faces = sphere_grid(9, 14, margin=0.02)
        pieces.append(rigid_piece(HAIR, centre + ball * np.array([0.042, 0.040, 0.038]), ball_faces, {"head": 1.0}))
    return pieces


def _curtain(
    figure: Figure, body: np.ndarray, box: tuple[np.ndarray, np.ndarray], style: str, thickness: float, outermost: float
) -> Piece:
    """Hair that hangs from the back and the sides of the head, in front of neither face nor shoulders."""
    marks = figure.marks
    low, high = box
    middle_z, half_depth = (low[2] + high[2]) / 2 - 0.008, (high[2] - low[2]) / 2 - 0.004
    half_width = (high[0] - low[0]) / 2 + 0.004
    top = low[1] + 0.62 * (high[1] - low[1])
    chin_y = low[1]
    end = chin_y - 0.005 if style == "bob" else chin_y - 0.22
    rows, columns = 14, 22
    fall = np.linspace(0, 1, rows)[:, None]
    height = top + (end - top) * fall
    below_chin = np.clip((chin_y - height) / 0.22, 0, 1)
    reach = 1.95 - 0.75 * below_chin  # half-angle around the back of the head
    angle = np.linspace(-1, 1, columns)[None, :] * reach
    out = thickness + 0.012 * fall
    x = (half_width + out) * np.sin(angle) * (1 + 0.10 * below_chin)
    z = middle_z - (half_depth + out) * np.cos(angle) * (1 - 0.35 * below_chin)
    y = height + 0 * angle
    rest = np.stack([x, y, z], -1).reshape(-1, 3)
    is_torso = (body[:, 1] < marks.neck + 0.06) & (body[:, 1] > marks.chest - 0.15) & (np.abs(body[:, 0]) < 0.25)
    torso = body[is_torso, REST]
    behind = np.full((rows, columns), np.inf)
    for row, level in enumerate(height[:, 0]):
        beside = torso[np.abs(torso[:, 1] - level) < 0.022]
        near = np.abs(beside[:, 0] - x[row, :, None]) < 0.022
        behind[row] = np.where(near, beside[:, 2], np.inf).min(1, initial=np.inf)
    behind = behind.reshape(-1) - 0.018 - outermost
    rest[:, 2] = np.minimum(rest[:, 2], np.where(np.isfinite(behind), behind, rest[:, 2]))
    piece = rigid_piece(HAIR, rest, grid_faces(rows, columns, False), {})
    neck_y = float(body[np.abs(body[:, 1] - marks.neck) < 0.02][:, REST][:, 1].mean())
    on_head = smooth_step((rest[:, 1] - neck_y + 0.02) / (chin_y - neck_y + 0.04))
    piece.attributes[:, weight_of("head")] = on_head
    piece.attributes[:, weight_of("neck")] = (1 - on_head) * 0.4
    piece.attributes[:, weight_of("spine3")] = (1 - on_head) * 0.6
    return piece


def _tail(box: tuple[np.ndarray, np.ndarray]) -> Piece:
    """A ponytail: a tapered tube from the back of the head down to the shoulders."""
    low, high = box
    start = np.array([0.0, high[1] - 0.075, low[2] - 0.004])
    down = [0.004, 0.010, -0.010, -0.07, -0.14, -0.20, -0.25]
    back = [0.0, -0.030, -0.052, -0.062, -0.060, -0.050, -0.040]
    radius = np.array([0.016, 0.018, 0.026, 0.032, 0.028, 0.020, 0.004])
    path = start + np.stack([np.zeros(7), down, back], 1)
    turn = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    direction = np.gradient(path, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    side = np.array([1.0, 0.0, 0.0])
    other = np.cross(direction, side)
    ring = np.cos(turn)[None, :, None] * side * 1.15 + np.sin(turn)[None, :, None] * other[:, None]
    points = path[:, None] + radius[:, None, None] * ring
    return rigid_piece(HAIR, points.reshape(-1, 3), grid_faces(7, 10, True), {"head": 1.0})
