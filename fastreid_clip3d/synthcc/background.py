"""Procedural scenes behind the people: a floor and a wall in true perspective, drawn anew for every image.

The scene of an image depends on the image's own random stream only, never on the person, the clothes or the camera's
number: a background must not give away who stands in front of it. Colours are sRGB in 0..1; lengths in metres.
"""

from __future__ import annotations

import numpy as np

from fastreid_clip3d.synthcc.camera import View
from fastreid_clip3d.synthcc.noise import cell_values, fractal_noise, value_noise
from fastreid_clip3d.synthcc.seeds import pick
from fastreid_clip3d.synthcc.wardrobe import Colour

WALL_COLOURS: tuple[Colour, ...] = (
    (0.84, 0.82, 0.77), (0.74, 0.73, 0.70), (0.62, 0.62, 0.61), (0.76, 0.69, 0.58), (0.66, 0.58, 0.50),
    (0.58, 0.62, 0.64), (0.66, 0.70, 0.66), (0.71, 0.63, 0.57), (0.50, 0.50, 0.52), (0.87, 0.86, 0.84),
    (0.56, 0.60, 0.54), (0.62, 0.66, 0.72),
)  # fmt: skip
BRICK_COLOURS: tuple[Colour, ...] = (
    (0.52, 0.33, 0.26), (0.58, 0.43, 0.35), (0.47, 0.42, 0.38), (0.66, 0.58, 0.48), (0.42, 0.33, 0.30),
    (0.68, 0.64, 0.58),
)  # fmt: skip
FLOOR_COLOURS: tuple[Colour, ...] = (
    (0.48, 0.47, 0.45), (0.56, 0.54, 0.50), (0.38, 0.38, 0.39), (0.62, 0.58, 0.51), (0.52, 0.44, 0.36),
    (0.66, 0.65, 0.62), (0.44, 0.40, 0.36), (0.50, 0.52, 0.54),
)  # fmt: skip
FOLIAGE_COLOURS: tuple[Colour, ...] = (
    (0.24, 0.33, 0.16), (0.30, 0.36, 0.18), (0.20, 0.29, 0.18), (0.38, 0.40, 0.22), (0.34, 0.28, 0.16),
)  # fmt: skip
OBJECT_COLOURS: tuple[Colour, ...] = (
    (0.20, 0.22, 0.25), (0.45, 0.44, 0.42), (0.60, 0.57, 0.52), (0.27, 0.33, 0.42), (0.45, 0.26, 0.22),
    (0.33, 0.38, 0.32), (0.70, 0.66, 0.58), (0.36, 0.28, 0.22), (0.62, 0.60, 0.36), (0.75, 0.75, 0.75),
)  # fmt: skip

INDOOR: dict[str, float] = {"corridor": 3, "panels": 2, "shelves": 1.5, "windows": 1.5, "lockers": 1, "corner": 2}
OUTDOOR: dict[str, float] = {
    "brick": 2, "shopfront": 2, "park": 2.5, "hedge": 1.5, "concrete": 1.5, "plaza": 2.5, "fence": 1,
}  # fmt: skip


def _jittered(rng: np.random.Generator, palette: tuple[Colour, ...], spread: float = 0.012) -> np.ndarray:
    """A colour of the palette, a little lighter or darker and shifted by about `spread`."""
    colour = _rgb(*palette[int(rng.integers(len(palette)))]) * np.float32(np.exp(rng.normal(0, 0.12)))
    return np.clip(colour + rng.normal(0, spread, 3), 0.04, 0.95).astype(np.float32)


def _rgb(*channels: float) -> np.ndarray:
    return np.array(channels, dtype=np.float32)


def _line(position: np.ndarray, period: float, width: float) -> np.ndarray:
    """1 on lines of `width` at multiples of `period`, soft edges."""
    distance = np.abs(position - np.round(position / period) * period)
    return np.clip((width - distance) / (0.5 * width + 0.006) + 0.5, 0, 1).astype(np.float32)


def _between(value: np.ndarray, low: float | np.ndarray, high: float | np.ndarray, soft: float = 0.012) -> np.ndarray:
    """1 between the limits, 0 outside, with edges `soft` wide."""
    return (np.clip((value - low) / soft + 0.5, 0, 1) * np.clip((high - value) / soft + 0.5, 0, 1)).astype(np.float32)


def _mix(image: np.ndarray, colour: np.ndarray | np.float32, amount: np.ndarray) -> np.ndarray:
    """The image with a share `amount` [H, W] of another colour or picture."""
    return image + (colour - image) * amount[..., None]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _floor(rng: np.random.Generator, kind: str, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    base = _jittered(rng, FLOOR_COLOURS)
    seed = _seed(rng)
    tone = 0.94 + 0.12 * fractal_noise(x * 0.8, z * 0.8, seed)
    if kind == "tiles":
        size = rng.uniform(0.3, 0.8)
        tone = tone * (0.96 + 0.08 * cell_values(x / size + 0.5, z / size + 0.5, seed + 7))
        tone = tone * (1 - 0.22 * np.maximum(_line(x, size, 0.010), _line(z, size, 0.014)))
    elif kind == "wood":
        size = rng.uniform(0.10, 0.2)
        tone = tone * (0.88 + 0.2 * cell_values(x / size, z / 1.4, seed + 7)) * (1 - 0.2 * _line(x, size, 0.006))
        base = np.clip(base * _rgb(1.12, 0.98, 0.80), 0, 1)
    elif kind == "paving":
        size = rng.uniform(0.35, 0.7)
        row = np.floor(z / size)
        tone = tone * (0.92 + 0.14 * cell_values(x / size + 0.5 * (row % 2), row, seed + 7))
        tone = tone * (1 - 0.2 * np.maximum(_line(z, size, 0.014), _line(x + 0.5 * size * (row % 2), size, 0.012)))
    elif kind == "asphalt":
        base = np.float32(rng.uniform(0.28, 0.46)) * _rgb(1.0, 1.0, 1.02)
        tone = tone * (0.95 + 0.10 * value_noise(x * 9, z * 9, seed + 7))
        if rng.random() < 0.4:
            stripe = _between(x * np.cos(0.5) + z * np.sin(0.5), 0.9, 1.02)
            return _mix(base * tone[..., None], np.float32(0.8), 0.8 * stripe)
    elif kind == "grass":
        base = _jittered(rng, FOLIAGE_COLOURS, 0.02)
        tone = 0.75 + 0.5 * fractal_noise(x * 4, z * 3, seed, 3)
        if rng.random() < 0.6:  # a path of gravel
            path = _between(x + 0.3 * z + 0.25 * value_noise(z, z * 0, seed + 3), -0.9, 1.1, 0.15)
            return _mix(base * tone[..., None], _jittered(rng, FLOOR_COLOURS) * 1.05, path * (0.9 + 0.1 * tone))
    return base * tone[..., None]


def _foliage(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    """Leaf clumps: light above, dark below, at three sizes."""
    seed, base = _seed(rng), _jittered(rng, FOLIAGE_COLOURS, 0.02)
    clumps = fractal_noise(u / size, v / size, seed, 2)
    leaves = fractal_noise(u / size * 5, v / size * 5, seed + 5, 2)
    light = 0.62 + 0.85 * clumps * clumps + 0.5 * (leaves - 0.5)
    return np.clip(base * light[..., None] * _rgb(1.05, 1.0, 0.9), 0.02, 1)


def _windows(
    image: np.ndarray, rng: np.random.Generator, u: np.ndarray, y: np.ndarray,
    period: float, low: float, high: float, share: float,
) -> np.ndarray:  # fmt: skip
    """Window panes with frames, a soft reflection and a bar in the middle, one every `period` metres.

    `low` and `high` are the panes' edges in metres above the floor, `share` the part of the period that is glass.
    """
    seed = _seed(rng)
    local = (u / period) - np.floor(u / period)
    left, right = period * (1 - share) / 2, period * (1 + share) / 2
    pane = _between(local * period, left, right) * _between(y, low, high)
    frame = _between(local * period, left - 0.06, right + 0.06) * _between(y, low - 0.06, high + 0.06)
    trim = np.float32(rng.uniform(0.25, 0.85))
    sky = np.clip((y - low) / (high - low), 0, 1)
    tint = _rgb(0.30, 0.36, 0.42) * np.float32(rng.uniform(0.5, 1.5))
    glass = tint * (0.7 + 0.5 * sky + 0.35 * (value_noise(u * 1.3 + y, y * 0.7, seed) - 0.5))[..., None]
    image = _mix(image, trim, frame)
    image = _mix(image, np.clip(glass, 0, 1), pane)
    return _mix(image, trim, pane * _line(local * period - period / 2, period, 0.02))


def _boxes(
    image: np.ndarray, rng: np.random.Generator, u: np.ndarray, y: np.ndarray,
    count: int, bottom: tuple[float, float], size: tuple[float, float],
) -> np.ndarray:  # fmt: skip
    """`count` rectangles on the wall: posters, signs, doors, cupboards; limits of their lower edge and size, metres."""
    for _ in range(count):
        left, width = rng.uniform(-2.2, 2.0), rng.uniform(*size)
        low, height = rng.uniform(*bottom), rng.uniform(*size) * rng.uniform(0.7, 1.5)
        area = _between(u, left, left + width) * _between(y, low, low + height)
        colour = _jittered(rng, OBJECT_COLOURS, 0.02)
        image = _mix(image, colour * (0.95 + 0.1 * (y[..., None] - low)), area)
        if rng.random() < 0.5:
            inner = _between(u, left + 0.15 * width, left + 0.85 * width)
            inner = inner * _between(y, low + 0.55 * height, low + 0.9 * height)
            image = _mix(image, np.clip(colour + rng.choice([-0.15, 0.2]), 0, 1).astype(np.float32), inner * 0.8)
    return image


def _wall(rng: np.random.Generator, kind: str, u: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colours of the wall at metres `u` along it and `y` above the floor."""
    base = _jittered(rng, WALL_COLOURS)
    seed = _seed(rng)
    stain = 0.95 + 0.08 * fractal_noise(u * 0.7, y * 0.5, seed, 2)
    image = base * stain[..., None]
    if kind in ("corridor", "corner"):
        if rng.random() < 0.6:  # painted lower part
            image = _mix(image, _jittered(rng, WALL_COLOURS) * 0.8, _between(y, -1, rng.uniform(0.8, 1.3)))
        if rng.random() < 0.7:
            left, width = rng.uniform(-2.0, 1.6), rng.uniform(0.8, 1.1)
            door = _between(u, left, left + width) * _between(y, -1, 2.05)
            frame = _between(u, left - 0.08, left + width + 0.08) * _between(y, -1, 2.13)
            handle = _between(u, left + 0.06, left + 0.12) * _between(y, 0.98, 1.04)
            image = _mix(image, np.float32(0.75) * base, frame)
            image = _mix(image, _jittered(rng, OBJECT_COLOURS), door)
            image = _mix(image, np.float32(0.85), handle)
        image = _boxes(image, rng, u, y, count=int(rng.integers(0, 3)), bottom=(1.0, 1.5), size=(0.3, 0.7))
        image = _mix(image, base * 0.55, _between(y, -1, 0.09))
    elif kind == "panels":
        period = rng.uniform(0.5, 1.2)
        image = image * (0.93 + 0.12 * cell_values(u / period, y / 2.4, seed + 1))[..., None]
        joints = np.maximum(_line(u, period, 0.012), _line(y - 0.2, rng.uniform(0.8, 2.4), 0.012))
        image = image * (1 - 0.35 * joints)[..., None]
        image = _mix(image, base * 0.5, _between(y, -1, 0.1))
    elif kind == "lockers":
        period, colour = rng.uniform(0.3, 0.45), _jittered(rng, OBJECT_COLOURS)
        lockers = colour * (0.95 + 0.1 * cell_values(u / period, y / 0.9, seed + 1))[..., None]
        lockers = lockers * (1 - 0.5 * np.maximum(_line(u, period, 0.012), _line(y, 0.9, 0.012)))[..., None]
        slots = _line(y - 0.2, 0.9, 0.06) * _line(y, 0.05, 0.008) * _between((u / period) % 1.0, 0.25, 0.75, 0.05)
        image = _mix(image, lockers * (1 - 0.4 * slots[..., None]), _between(y, 0.0, 1.8))
    elif kind == "shelves":
        height, colour = rng.uniform(0.3, 0.45), _jittered(rng, WALL_COLOURS)
        cell = np.floor(u / (0.10 + 0.12 * cell_values(u * 0, y / height, seed + 2)))
        goods = np.stack([cell_values(cell, y / height, seed + 3 + c) for c in range(3)], -1)
        grey = goods.mean(-1, keepdims=True)
        goods = 0.15 + 0.55 * (grey + 0.35 * (goods - grey))
        top = _between(y % height, 0, 0.8 * height * (0.6 + 0.4 * cell_values(cell, y / height, seed + 9)), 0.02)
        image = _mix(colour * 0.35 * np.ones_like(image), goods.astype(np.float32), top)
        image = _mix(image, colour, _line(y, height, 0.022))
        image = _mix(image, base, _between(y, 2.0, 9))
    elif kind == "windows":
        shift, period, low, high = (rng.uniform(*limits) for limits in ((0, 2), (1.2, 2.2), (0.7, 1.0), (2.0, 2.6)))
        image = _windows(image, rng, u + shift, y, period, low, high, share=rng.uniform(0.55, 0.85))
        image = _mix(image, base * 0.6, _between(y, -1, 0.09))
    elif kind == "brick":
        brick, width, height = _jittered(rng, BRICK_COLOURS), 0.24, 0.085
        row = np.floor(y / height)
        shifted = u + 0.5 * width * (row % 2)
        image = brick * (0.80 + 0.35 * cell_values(shifted / width, row, seed + 1))[..., None] * stain[..., None]
        mortar = np.maximum(_line(y, height, 0.007), _line(shifted, width, 0.007))
        image = _mix(image, np.float32(rng.uniform(0.45, 0.7)), 0.7 * mortar)
        if rng.random() < 0.5:
            shift, period, low = rng.uniform(0, 2), rng.uniform(1.6, 2.6), rng.uniform(0.9, 1.2)
            image = _windows(image, rng, u + shift, y, period, low, high=2.4, share=0.5)
        elif rng.random() < 0.6:
            image = _boxes(image, rng, u, y, count=1, bottom=(0.0, 1.2), size=(0.5, 1.0))
    elif kind == "shopfront":
        image = _mix(image, _jittered(rng, OBJECT_COLOURS), _between(y, 2.25, 2.9))
        shift, period, low = rng.uniform(0, 2), rng.uniform(1.4, 2.6), rng.uniform(0.25, 0.6)
        image = _windows(image, rng, u + shift, y, period, low, high=2.15, share=0.9)
        image = _mix(image, base * 0.6, _between(y, -1, 0.2))
    elif kind == "concrete":
        period = rng.uniform(1.0, 2.0)
        image = (base * 0.4 + 0.33) * (0.88 + 0.2 * fractal_noise(u * 1.5, y * 1.0, seed + 1))[..., None]
        image = image * (1 - 0.3 * np.maximum(_line(u, period, 0.014), _line(y, 1.2, 0.012)))[..., None]
        image = _boxes(image, rng, u, y, count=int(rng.integers(0, 3)), bottom=(0.8, 1.6), size=(0.3, 0.8))
    elif kind == "fence":
        leaves = _foliage(rng, u, y, 0.9)
        image = _mix(leaves, _rgb(0.70, 0.76, 0.82), _between(y, rng.uniform(1.8, 2.8), 99, 0.3))
        colour = _jittered(rng, OBJECT_COLOURS)
        rails = np.maximum(_line(y - 0.2, 9, 0.03), _line(y - 1.4, 9, 0.03))
        bars = np.maximum(_line(u, rng.uniform(0.1, 0.2), 0.014), rails)
        image = _mix(image, colour, bars * _between(y, -1, 1.5))
    elif kind == "hedge":
        top = rng.uniform(1.2, 3.0) + 0.25 * (value_noise(u * 2, u * 0, seed) - 0.5)
        behind = image * 0.9
        if rng.random() < 0.5:
            behind = behind * 0 + _rgb(0.68, 0.75, 0.83)
        green = _foliage(rng, u, y, rng.uniform(0.35, 0.8))
        green = green * np.clip(0.55 + 0.4 * y, 0.55, 1.1)[..., None]
        image = _mix(behind, green, np.clip((top - y) / 0.05, 0, 1).astype(np.float32))
    return image


def _far_scene(rng: np.random.Generator, kind: str, azimuth: np.ndarray, height: np.ndarray) -> np.ndarray:
    """What lies at the horizon of an open place; `azimuth` and `height` in metres at about 25 m."""
    seed = _seed(rng)
    zenith = _rgb(0.60, 0.70, 0.82) * np.float32(rng.uniform(0.8, 1.15))
    haze = _rgb(0.82, 0.83, 0.83) * np.float32(rng.uniform(0.85, 1.05))
    share = np.clip(height / 10, 0, 1)[..., None]
    image = haze * (1 - share) + zenith * share
    if kind == "plaza" or rng.random() < 0.3:
        width = rng.uniform(4, 9)
        block = np.floor(azimuth / width)
        top = 3 + 9 * cell_values(block, block * 0, seed)
        colour = 0.35 + 0.35 * np.stack([cell_values(block, block * 0, seed + 1)] * 3, -1)
        tint = 0.1 * (cell_values(block, block * 0, seed + 2)[..., None] - 0.5)
        colour = colour * (_rgb(1.0, 0.97, 0.92) + tint)
        rows = _between((height / 1.6) % 1.0, 0.25, 0.8, 0.1) * _between((azimuth / 1.2) % 1.0, 0.25, 0.75, 0.1)
        dark = 0.5 + 0.5 * cell_values(azimuth / 1.2, height / 1.6, seed + 4)[..., None]
        colour = colour * (1 - 0.4 * rows[..., None] * dark)
        image = _mix(image, colour.astype(np.float32), np.clip((top - height) / 0.2, 0, 1).astype(np.float32))
    trees_end = rng.uniform(2, 6) if kind == "park" else rng.uniform(0, 2.5)
    crown = trees_end + 3.5 * (fractal_noise(azimuth * 0.25, azimuth * 0, seed + 8, 3) - 0.5)
    trees = _foliage(rng, azimuth, height, 1.6) * 0.85 + 0.10
    image = _mix(image, trees, np.clip((crown - height) / 0.25, 0, 1).astype(np.float32))
    if kind == "park":
        for _ in range(int(rng.integers(1, 4))):
            centre, radius = rng.uniform(-4, 4), rng.uniform(0.15, 0.4)
            trunk = _between(azimuth + 0.1 * np.sin(height), centre - radius, centre + radius, 0.08)
            bark = _rgb(0.26, 0.21, 0.17) * (0.8 + 0.4 * value_noise(azimuth * 6, height, seed))[..., None]
            image = _mix(image, bark, trunk * _between(height, -9, crown + 2))
    return image


def _shadow(x: np.ndarray, z: np.ndarray, feet: np.ndarray, light: np.ndarray, strength: float) -> np.ndarray:
    """Factor on the floor's colour: contact shadows under the feet and a soft cast shadow away from the light."""
    factor = np.ones_like(x)
    for foot in feet:
        distance = (x - foot[0]) ** 2 + (z - foot[1]) ** 2
        factor *= 1 - 0.55 * np.exp(-distance / (2 * 0.085**2))
    start = feet.mean(0)
    flat = -light[[0, 2]] / max(light[1], 0.35)
    along = flat * 1.2
    length = float(np.dot(along, along)) + 1e-6
    share = np.clip(((x - start[0]) * along[0] + (z - start[1]) * along[1]) / length, 0, 1)
    distance = np.hypot(x - start[0] - share * along[0], z - start[1] - share * along[1])
    return factor * (1 - strength * np.exp(-((distance / (0.17 + 0.08 * share)) ** 2)) * (1 - 0.5 * share))


def paint_background(
    rng: np.random.Generator, view: View, height: int, width: int, outdoor: bool, feet: np.ndarray, light: np.ndarray
) -> np.ndarray:
    """The empty scene of one image, float32 [height, width, 3], sRGB in 0..1, from the image's own stream.

    `feet` [K, 2] (x, z) and the unit vector `light` [3] towards the key light give the person's shadow.
    """
    rays, centre = view.rays(height, width), view.centre.astype(np.float32)
    kind = pick(rng, OUTDOOR if outdoor else INDOOR)
    down = np.minimum(rays[..., 1], -1e-4)
    to_floor = np.where(rays[..., 1] < -1e-4, -centre[1] / down, np.float32(1e4))
    open_place = kind in ("park", "plaza")
    yaw = np.deg2rad(rng.uniform(-28, 28) if kind != "corner" else rng.choice([-1, 1]) * rng.uniform(30, 50))
    wall_distance = rng.uniform(0.9, 4.5) if not outdoor else rng.uniform(1.2, 6.0)
    floor_turn = rng.uniform(-0.6, 0.6)
    if open_place:
        to_wall = np.full_like(to_floor, 40.0)
        azimuth, up = rays[..., 0] / -rays[..., 2] * 25.0, centre[1] + 25.0 * rays[..., 1] / -rays[..., 2]
        backdrop = _far_scene(rng, kind, azimuth, up)
    else:

        def hit(angle: float, distance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            normal = np.array([np.sin(angle), 0, np.cos(angle)], dtype=np.float32)
            facing = np.minimum(rays @ normal, -1e-3)
            t = (-distance - centre @ normal) / facing
            point = centre + rays * t[..., None]
            return t, point[..., 0] * np.cos(angle) - point[..., 2] * np.sin(angle), point[..., 1]

        to_wall, u, y = hit(yaw, wall_distance)
        offset = rng.uniform(-1.5, 1.5)
        backdrop = _wall(rng, kind, u + offset, y)
        if kind == "corner":
            other, u2, y2 = hit(yaw - np.sign(yaw) * np.pi / 2, wall_distance * rng.uniform(0.6, 1.4))
            nearer = other < to_wall
            backdrop = np.where(nearer[..., None], 0.82 * _wall(rng, "corridor", u2, y2), backdrop)
            to_wall = np.minimum(to_wall, other)
        corner = np.clip(y / 0.35, 0, 1)[..., None]
        backdrop = backdrop * (0.80 + 0.20 * corner) if kind != "hedge" else backdrop
    floors: dict[str, float] = {"tiles": 4, "wood": 2, "plain": 2}
    if outdoor:
        floors = {"paving": 3, "asphalt": 3, "grass": 4 if kind == "park" else 0.7, "tiles": 0.7}
    floor_kind = pick(rng, floors)
    reach = np.minimum(to_floor, to_wall)
    point = centre + rays * reach[..., None]
    turned_x = point[..., 0] * np.cos(floor_turn) - point[..., 2] * np.sin(floor_turn)
    turned_z = point[..., 0] * np.sin(floor_turn) + point[..., 2] * np.cos(floor_turn)
    floor = _floor(rng, floor_kind, turned_x + rng.uniform(0, 1), turned_z + rng.uniform(0, 1))
    if open_place:
        fog = np.clip((reach - 12) / 40, 0, 0.7)[..., None]
        floor = floor * (1 - fog) + 0.62 * fog
    floor = floor * _shadow(point[..., 0], point[..., 2], feet, light, 0.35 if outdoor else 0.2)[..., None]
    is_floor = np.clip((to_wall - to_floor) / 0.05 + 0.5, 0, 1)[..., None]
    image = backdrop * (1 - is_floor) + floor * is_floor
    # One broad light gradient over the whole scene, as lamps and the sky give.
    grid_y, grid_x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    slope = rng.normal(0, 0.12, 2)
    image = image * (1 + slope[0] * (grid_x - 0.5) + slope[1] * (grid_y - 0.5))[..., None]
    return np.clip(image, 0, 1).astype(np.float32)


def paint_occluder(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A pole, a box, a plant or a railing between the camera and the person.

    sRGB colours [height, width, 3] and coverage [height, width], both float32 in 0..1.
    """
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    kind = pick(rng, {"pole": 2, "box": 2, "plant": 2, "rail": 1})
    colour = _jittered(rng, OBJECT_COLOURS)
    shade = np.ones_like(x)
    if kind == "pole":
        centre, radius = rng.uniform(0.1, 0.9), rng.uniform(0.03, 0.07)
        cover = _between(x, centre - radius, centre + radius, 0.02)
        shade = 0.6 + 0.5 * np.sqrt(np.clip(1 - ((x - centre + 0.3 * radius) / (1.3 * radius)) ** 2, 0, 1))
    elif kind == "box":
        left, top = rng.uniform(-0.5, 0.6), rng.uniform(0.62, 0.85)
        cover = _between(x, left, left + rng.uniform(0.5, 1.0), 0.02) * _between(y, top, 2, 0.015)
        shade = 0.75 + 0.25 * (y < top + 0.03)
    elif kind == "plant":
        centre, top, seed = rng.choice([0.0, 1.0]) + rng.normal(0, 0.12), rng.uniform(0.5, 0.75), _seed(rng)
        shape = ((x - centre) / 0.42) ** 2 + ((y - 1) / (1 - top)) ** 2
        cover = np.clip((1 - shape - 0.9 * (fractal_noise(x * 7, y * 14, seed, 2) - 0.5)) * 6, 0, 1)
        return _foliage(rng, x * 2, y * 4, 0.35).astype(np.float32), cover.astype(np.float32)
    else:
        top = rng.uniform(0.55, 0.7)
        bars = _line(x - rng.uniform(0, 0.1), rng.uniform(0.14, 0.25), 0.012) * _between(y, top, 2, 0.01)
        cover = np.maximum(bars, _between(y, top, top + 0.02, 0.008))
    return np.clip(colour * shade[..., None], 0, 1).astype(np.float32), cover.astype(np.float32)
