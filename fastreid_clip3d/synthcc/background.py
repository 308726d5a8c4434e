"""Procedural scenes behind the people: a floor and a wall in true perspective, drawn anew for every image.

The scene of an image depends on the image's own random stream only, never on the person, the clothes or the camera's
number: a background must not give away who stands in front of it. Colours are sRGB in 0..1; lengths in metres.
"""

from __future__ import annotations

import numpy as np

from fastreid_clip3d.synthcc.camera import View
from fastreid_clip3d.synthcc.far_scenes import paint_far_scene
from fastreid_clip3d.synthcc.floors import paint_floor, shadow_factor
from fastreid_clip3d.synthcc.seeds import pick
from fastreid_clip3d.synthcc.walls import paint_wall

INDOOR: dict[str, float] = {"corridor": 3, "panels": 2, "shelves": 1.5, "windows": 1.5, "lockers": 1, "corner": 2}
OUTDOOR: dict[str, float] = {
    "brick": 2, "shopfront": 2, "park": 2.5, "hedge": 1.5, "concrete": 1.5, "plaza": 2.5, "fence": 1,
}  # fmt: skip
OPEN_PLACES = ("park", "plaza")
"""Kinds without a wall."""


def paint_background(
    rng: np.random.Generator, view: View, height: int, width: int, outdoor: bool, feet: np.ndarray, light: np.ndarray
) -> np.ndarray:
    """The empty scene of one image, float32 [height, width, 3], sRGB in 0..1, from the image's own stream.

    `feet` [K, 2] (x, z) and the unit vector `light` [3] towards the key light give the person's shadow.
    """
    rays, centre = view.rays(height, width), view.centre.astype(np.float32)
    kind = pick(rng, OUTDOOR if outdoor else INDOOR)
    yaw = np.deg2rad(rng.uniform(-28, 28) if kind != "corner" else rng.choice([-1, 1]) * rng.uniform(30, 50))
    wall_distance = rng.uniform(1.2, 6.0) if outdoor else rng.uniform(0.9, 4.5)
    floor_turn = rng.uniform(-0.6, 0.6)
    if kind in OPEN_PLACES:
        azimuth, up = rays[..., 0] / -rays[..., 2] * 25.0, centre[1] + 25.0 * rays[..., 1] / -rays[..., 2]
        backdrop = paint_far_scene(rng, kind, azimuth, up)
        to_wall = np.full(rays.shape[:2], 40.0, dtype=np.float32)
    else:
        backdrop, to_wall = _backdrop(rng, kind, rays, centre, yaw, wall_distance)
    down = np.minimum(rays[..., 1], -1e-4)
    to_floor = np.where(rays[..., 1] < -1e-4, -centre[1] / down, np.float32(1e4))
    reach = np.minimum(to_floor, to_wall)
    point = centre + rays * reach[..., None]
    floor = _turned_floor(rng, pick(rng, _floors(kind, outdoor)), point, floor_turn)
    if kind in OPEN_PLACES:
        fog = np.clip((reach - 12) / 40, 0, 0.7)[..., None]
        floor = floor * (1 - fog) + 0.62 * fog
    floor = floor * shadow_factor(point[..., 0], point[..., 2], feet, light, 0.35 if outdoor else 0.2)[..., None]
    is_floor = np.clip((to_wall - to_floor) / 0.05 + 0.5, 0, 1)[..., None]
    image = backdrop * (1 - is_floor) + floor * is_floor
    return np.clip(image * _light_gradient(rng, height, width), 0, 1).astype(np.float32)


def _backdrop(
    rng: np.random.Generator, kind: str, rays: np.ndarray, centre: np.ndarray, yaw: float, distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Colours [H, W, 3] of the wall, or of two walls that meet in a corner, and the rays' lengths to it [H, W]."""
    to_wall, u, y = _hit_wall(rays, centre, yaw, distance)
    offset = rng.uniform(-1.5, 1.5)
    backdrop = paint_wall(rng, kind, u + offset, y)
    if kind == "corner":
        other, other_u, other_y = _hit_wall(
            rays, centre, yaw - np.sign(yaw) * np.pi / 2, distance * rng.uniform(0.6, 1.4)
        )
        nearer = other < to_wall
        backdrop = np.where(nearer[..., None], 0.82 * paint_wall(rng, "corridor", other_u, other_y), backdrop)
        to_wall = np.minimum(to_wall, other)
    if kind != "hedge":
        backdrop = backdrop * (0.80 + 0.20 * np.clip(y / 0.35, 0, 1)[..., None])  # it is darker near the floor
    return backdrop, to_wall


def _hit_wall(
    rays: np.ndarray, centre: np.ndarray, angle: float, distance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rays from `centre` meet a wall: their lengths, metres along the wall and above the floor, each [H, W]."""
    normal = np.array([np.sin(angle), 0, np.cos(angle)], dtype=np.float32)
    facing = np.minimum(rays @ normal, -1e-3)
    reach = (-distance - centre @ normal) / facing
    point = centre + rays * reach[..., None]
    return reach, point[..., 0] * np.cos(angle) - point[..., 2] * np.sin(angle), point[..., 1]


def _floors(kind: str, outdoor: bool) -> dict[str, float]:
    """Kinds of floor with their relative frequencies."""
    if outdoor:
        return {"paving": 3, "asphalt": 3, "grass": 4 if kind == "park" else 0.7, "tiles": 0.7}
    return {"tiles": 4, "wood": 2, "plain": 2}


def _turned_floor(rng: np.random.Generator, kind: str, point: np.ndarray, turn: float) -> np.ndarray:
    """Colours [H, W, 3] of the floor at `point` [H, W, 3], its pattern turned by `turn` radians."""
    x = point[..., 0] * np.cos(turn) - point[..., 2] * np.sin(turn)
    z = point[..., 0] * np.sin(turn) + point[..., 2] * np.cos(turn)
    return paint_floor(rng, kind, x + rng.uniform(0, 1), z + rng.uniform(0, 1))


def _light_gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One broad light gradient over the whole scene, as lamps and the sky give: a factor [height, width, 1]."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    slope = rng.normal(0, 0.12, 2)
    return (1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5))[..., None]
