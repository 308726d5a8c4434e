"""Shoes, hats and bags."""

from __future__ import annotations

import dataclasses

import numpy as np

from fastreid_clip3d.body.constants import JOINTS
from fastreid_clip3d.synthcc.figure import CANONICAL, NORMAL, REST, SIDES, WEIGHTS, Figure
from fastreid_clip3d.synthcc.garments import BAG, HAT, SHOE, Piece, cut_out, rigid_piece, smooth_step, spanned
from fastreid_clip3d.synthcc.mesh_tools import grid_faces, sphere_grid
from fastreid_clip3d.synthcc.outfit import Bag, Hat, Shoes

FOREARMS = [JOINTS[f"{side}_{name}"] for name in ("wrist", "hand") for side in ("left", "right")]
SOLE: float = 0.018
"""Metres from the foot's underside to the ground."""


@dataclasses.dataclass
class Hanging:
    """A thing that hangs straight down from a posed joint; points [V, 3] relative to the joint, world axes."""

    joint: int
    points: np.ndarray
    faces: np.ndarray


STATIONS, AROUND = 13, 14


def make_shoes(figure: Figure, body: np.ndarray, joints: np.ndarray, shoes: Shoes, inside: float) -> list[Piece]:
    """Both shoes and socks: a closed form around each foot, and a shaft around the ankle.

    `inside`: offset of tight trousers, which go into boots; 0 where trousers go over them.
    """
    return [_shaft(figure, body, shoes, inside), *(_form(figure, body, joints, side) for _, side in SIDES)]


def _form(figure: Figure, body: np.ndarray, joints: np.ndarray, side: str) -> Piece:
    """A shoe without its shaft, as cross-sections from heel to toe: flat below, round above."""
    marks = figure.marks
    ankle, ball = JOINTS[f"{side}_ankle"], JOINTS[f"{side}_foot"]
    weights = body[:, WEIGHTS]
    foot = body[(weights[:, ankle] + weights[:, ball] > 0.5) & (body[:, 1] < marks.ankle + 0.01), REST]
    forward = joints[ball] - joints[ankle]
    forward = np.array([forward[0], 0.0, forward[2]]) / np.hypot(forward[0], forward[2])
    across = np.array([forward[2], 0.0, -forward[0]])
    along, beside = (foot - joints[ankle]) @ forward, (foot - joints[ankle]) @ across
    floor = foot[:, 1].min() - SOLE
    heel, toe = along.min() - 0.010, along.max() + 0.014
    places = np.linspace(heel, toe, STATIONS)
    near = np.abs(along - np.clip(places, along.min() + 0.01, along.max() - 0.012)[:, None]) < 0.018
    low = np.where(near, beside, np.inf).min(1)
    high, top = (np.where(near, values, -np.inf).max(1) for values in (beside, foot[:, 1]))
    for values in (low, high, top):
        values[1:-1] = (values[:-2] + 2 * values[1:-1] + values[2:]) / 4
    share = np.linspace(0, 1, STATIONS)
    # Heel and toe close like an egg.
    width = np.clip(1 - ((share - 0.5) / 0.5) ** 8, 0, 1) ** 0.5
    rise = np.minimum(1, 0.62 + 0.38 * np.clip(1 - ((share - 0.45) / 0.55) ** 4, 0, 1))
    middle, half = (low + high) / 2, (high - low) / 2 + 0.007
    height = np.minimum(top + 0.009 - floor, marks.ankle - marks.floor + 0.01) * rise
    turn = np.linspace(0, 2 * np.pi, AROUND, endpoint=False)
    side_shape = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.7
    up_shape = np.where(np.sin(turn) > 0, np.abs(np.sin(turn)) ** 0.9, -(np.abs(np.sin(turn)) ** 0.25))
    level = 0.42
    across_place = middle[:, None] + (half * width)[:, None] * side_shape[None]
    up_place = floor + height[:, None] * np.where(up_shape > 0, level + (1 - level) * up_shape, level * (1 + up_shape))
    up_place = up_place + (1 - width)[:, None] * 0.004
    rest = joints[ankle] + places[:, None, None] * forward + across_place[..., None] * across
    rest[..., 1] = up_place
    piece = rigid_piece(SHOE, rest.reshape(-1, 3), grid_faces(STATIONS, AROUND, True), {})
    toes = smooth_step((np.repeat(places, AROUND) - (joints[ball] - joints[ankle]) @ forward + 0.02) / 0.04)
    piece.attributes[:, WEIGHTS.start + ball], piece.attributes[:, WEIGHTS.start + ankle] = toes, 1 - toes
    piece.attributes[:, 1] = rest[..., 1].reshape(-1) - floor + marks.floor
    return piece


def _shaft(figure: Figure, body: np.ndarray, shoes: Shoes, inside: float) -> Piece:
    """The part of a shoe around the ankle, and the sock above it."""
    marks = figure.marks
    shaft = marks.ankle + shoes.height + shoes.sock
    low = marks.floor + 0.025
    attributes, faces, _ = cut_out(body, figure.foot_faces, lambda points: [shaft - points[:, 1], points[:, 1] - low])
    edge = shaft - attributes[:, CANONICAL][:, 1]
    points = attributes[:, CANONICAL]
    sock = points[:, 1] > marks.ankle + shoes.height
    shaft_offset = (inside + 0.007 if shoes.height > 0.03 else 0.006) if inside else 0.006
    offset = np.where(sock, 0.005 if not inside else 0.002, shaft_offset)
    toes = smooth_step((points[:, 2] - marks.neck_depth - 0.02) / 0.05) * (points[:, 1] < marks.ankle)
    smooth = spanned(attributes, edge - 0.01, 1.0)
    attributes[:, REST] = smooth + attributes[:, NORMAL] * (offset * (1 - toes) - 0.012 * toes)[:, None]
    return Piece(SHOE, attributes, edge.astype(np.float32), faces)


@dataclasses.dataclass(frozen=True)
class HatShape:
    """The form of a kind of hat. `front`, `back`: heights of its lower edge, 0 at the chin, 1 at the crown."""

    front: float
    back: float
    offset: float  # metres off the head
    brim: tuple[float, ...] = ()  # radii of the rings of peak or brim, relative to the head; () for none
    half_angle: float = float(np.pi)  # radians to each side of the front that the brim covers


HATS: dict[str, HatShape] = {
    "cap": HatShape(front=0.78, back=0.50, offset=0.013, brim=(0.90, 1.15, 1.40, 1.62), half_angle=1.15),
    "beanie": HatShape(front=0.74, back=0.48, offset=0.018),
    "brim": HatShape(front=0.76, back=0.62, offset=0.014, brim=(0.92, 1.12, 1.32, 1.50)),
}


def make_hat(figure: Figure, body: np.ndarray, hat: Hat) -> list[Piece]:
    """A cap with a peak, a beanie, or a hat with a brim all round."""
    marks = figure.marks
    height = marks.crown - marks.chin
    depth = marks.head_front - marks.head_back
    shape = HATS[hat.kind]

    def field(points: np.ndarray) -> list[np.ndarray]:
        forward = (points[:, 2] - marks.head_back) / depth
        return [points[:, 1] - (marks.chin + height * (shape.back + (shape.front - shape.back) * forward))]

    attributes, faces, edge = cut_out(body, figure.head_faces, field)
    offset = shape.offset + 0.010 * smooth_step(edge / 0.06)
    attributes[:, REST] += attributes[:, NORMAL] * offset[:, None]
    pieces = [Piece(HAT, attributes, edge.astype(np.float32), faces)]
    if shape.brim:
        pieces.append(_brim(shape, rim=attributes[edge < 0.015, REST]))
    return pieces


def _brim(shape: HatShape, rim: np.ndarray) -> Piece:
    """The peak of a cap or the brim of a hat, around the lower rim [n, 3] of its crown."""
    is_peak = shape.half_angle < np.pi
    middle_z = (rim[:, 2].max() + rim[:, 2].min()) / 2
    half_width, half_depth = np.abs(rim[:, 0]).max(), (rim[:, 2].max() - rim[:, 2].min()) / 2
    around = np.linspace(-shape.half_angle, shape.half_angle, 15 if is_peak else 25)
    angle, scale = np.meshgrid(around, shape.brim, indexing="ij")
    if is_peak:  # it is longest at the front
        scale = 1 + (scale - 1) * np.cos(angle / shape.half_angle * np.pi / 2) ** 0.5
    x = half_width * np.sin(angle) * (np.minimum(scale, 1.05) if is_peak else scale)
    z = middle_z + half_depth * np.cos(angle) * scale
    order = np.argsort(rim[:, 2])
    on_rim = np.interp(np.clip(z, rim[:, 2].min(), rim[:, 2].max()), rim[order, 2], rim[order, 1])
    y = on_rim + 0.004 - 0.10 * np.maximum(scale - 1, 0) ** 1.5
    faces = grid_faces(len(around), len(shape.brim), False)
    return rigid_piece(HAT, np.stack([x, y, z], -1).reshape(-1, 3), faces, {"head": 1.0})


def _box(centre: np.ndarray, half_sizes: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A box with rounded edges: a sphere of the norm of power 4."""
    unit, faces = sphere_grid(13, 24, margin=0.01)
    norm = (np.abs(unit) ** 4.0).sum(1, keepdims=True) ** (1 / 4.0)
    return centre + unit / norm * np.asarray(half_sizes), faces


def make_bag(
    figure: Figure, body: np.ndarray, joints: np.ndarray, bag: Bag, outermost: float
) -> tuple[list[Piece], list[Hanging]]:
    """A backpack, a bag at the hip on a strap, or one in the hand; `outermost`: metres from the skin to the outside."""
    marks = figure.marks
    if bag.kind == "hand":
        points, faces = _box(np.array([0.0, -0.30, 0.0]), half_sizes=(0.07, 0.13, 0.17))
        angle = np.linspace(0, np.pi, 9)
        arc = np.stack([np.zeros(9), -0.19 + 0.13 * np.sin(angle), 0.07 * np.cos(angle)], -1)
        turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
        handle = arc[:, None] + 0.010 * np.stack([np.cos(turn), 0 * turn, np.sin(turn)], -1)[None]
        faces = np.concatenate([faces, grid_faces(9, 6, True) + len(points)])
        return [], [Hanging(JOINTS["left_hand"], np.concatenate([points, handle.reshape(-1, 3)]), faces)]
    torso = body[(np.abs(body[:, 0]) < 0.1) & (np.abs(body[:, 1] - marks.chest) < 0.08)][:, REST]
    back = float(torso[:, 2].min()) - outermost
    if bag.kind == "backpack":
        centre = np.array([0.0, float(joints[JOINTS["spine3"], 1]) - 0.03, back - 0.075])
        return [rigid_piece(BAG, *_box(centre, half_sizes=(0.145, 0.215, 0.085)), {"spine3": 0.5, "spine2": 0.5})], []
    hip = body[(np.abs(body[:, 1] - marks.hip - 0.02) < 0.03) & (body[:, WEIGHTS][:, FOREARMS].sum(1) < 0.1)][:, REST]
    beside = float(hip[:, 0].max()) + 0.045 + outermost
    centre = np.array([beside, float(joints[JOINTS["left_hip"], 1]), float(hip[:, 2].mean())])
    return [rigid_piece(BAG, *_box(centre, half_sizes=(0.055, 0.105, 0.14)), {"pelvis": 1.0})], []
