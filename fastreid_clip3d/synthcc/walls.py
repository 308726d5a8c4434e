"""Walls of scenes, by kind: colours at metres `u` along the wall and `y` above the floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastreid_clip3d.synthcc.noise import cell_values, fractal_noise, value_noise
from fastreid_clip3d.synthcc.surfaces import (
    BRICK_COLOURS,
    OBJECT_COLOURS,
    WALL_COLOURS,
    between,
    foliage,
    jittered,
    line,
    mix,
    new_seed,
    rgb,
)


class PlainWall(NamedTuple):
    """What every wall starts from; u, y and stain are float [H, W]."""

    u: np.ndarray
    y: np.ndarray
    base: np.ndarray  # colour [3]
    seed: int  # of its noise
    stain: np.ndarray  # factor on the colour

    @property
    def image(self) -> np.ndarray:
        """The wall in its colour with stains, [H, W, 3]."""
        return self.base * self.stain[..., None]


def paint_wall(rng: np.random.Generator, kind: str, u: np.ndarray, y: np.ndarray) -> np.ndarray:
    """sRGB colours [H, W, 3] in 0..1 of a wall of this kind at metres `u` along it and `y` above the floor."""
    base = jittered(rng, WALL_COLOURS)
    seed = new_seed(rng)
    stain = 0.95 + 0.08 * fractal_noise(u * 0.7, y * 0.5, seed, 2)
    return _PAINTERS[kind](rng, PlainWall(u, y, base, seed, stain))


def _corridor(rng: np.random.Generator, wall: PlainWall) -> np.ndarray:
    u, y, image = wall.u, wall.y, wall.image
    if rng.random() < 0.6:  # painted lower part
        image = mix(image, jittered(rng, WALL_COLOURS) * 0.8, between(y, -1, rng.uniform(0.8, 1.3)))
    if rng.random() < 0.7:
        left, width = rng.uniform(-2.0, 1.6), rng.uniform(0.8, 1.1)
        door = between(u, left, left + width) * between(y, -1, 2.05)
        frame = between(u, left - 0.08, left + width + 0.08) * between(y, -1, 2.13)
        handle = between(u, left + 0.06, left + 0.12) * between(y, 0.98, 1.04)
        image = mix(image, np.float32(0.75) * wall.base, frame)
        image = mix(image, jittered(rng, OBJECT_COLOURS), door)
        image = mix(image, np.float32(0.85), handle)
    image = _boxes(image, rng, u, y, count=int(rng.integers(0, 3)), bottom=(1.0, 1.5), size=(0.3, 0.7))
    return mix(image, wall.base * 0.55, between(y, -1, 0.09))


def _panels(rng: np.random.Generator, wall: PlainWall) -> np.ndarray:
    u, y = wall.u, wall.y
    period = rng.uniform(0.5, 1.2)
    image = wall.image * (0.93 + 0.12 * cell_values(u / period, y / 2.4, wall.seed + 1))[..., None]
    joints = np.maximum(line(u, period, 0.012), line(y - 0.2, rng.uniform(0.8, 2.4), 0.012))
    image = image * (1 - 0.35 * joints)[..., None]
    return mix(image, wall.base * 0.5, between(y, -1, 0.1))


def _lockers(rng: np.random.Generator, wall: PlainWall) -> np.ndarray:
    u, y = wall.u, wall.y
    period, colour = rng.uniform(0.3, 0.45), jittered(rng, OBJECT_COLOURS)
    lockers = colour * (0.95 + 0.1 * cell_values(u / period, y / 0.9, wall.seed + 1))[..., None]
    lockers = lockers * (1 - 0.5 * np.maximum(line(u, period, 0.012), line(y, 0.9, 0.012)))[..., None]
    slots = line(y - 0.2, 0.9, 0.06) * line(y, 0.05, 0.008) * between((u / period) % 1.0, 0.25, 0.75, 0.05)
    return mix(wall.image, lockers * (1 - 0.4 * slots[..., None]), between(y, 0.0, 1.8))


def _shelves(rng: np.random.Generator, wall: PlainWall) -> np.ndarray:
    u, y, seed = wall.u, wall.y, wall.seed
    height, colour = rng.uniform(0.3, 0.45), jittered(rng, WALL_COLOURS)
    cell = np.floor(u / (0.10 + 0.12 * cell_values(u * 0, y / height, seed + 2)))
    goods = np.stack([cell_values(cell, y / height, seed + 3 + c) for c in range(3)], -1)
    grey = goods.mean(-1, keepdims=True)
    goods = 0.15 + 0.55 * (grey + 0.35 * (goods - grey))
    top = between(y % height, 0, 0.8 * height * (0.6 + 0.4 * cell_values(cell, y / height, seed + 9)), 0.02)
    image = mix(colour * 0.35 * np.ones_like(wall.image), goods.astype(np.float32), top)
    image = mix(image, colour, line(y, height, 0.022))
    return mix(image, wall.base, between(y, 2.0, 9))


def _indoor_windows(rng: np.random.Generator, wall: PlainWall) -> np.ndarray:
    shift, period, low, high = (rng.uniform(*limits) for limits in ((0, 2), (1.2, 2.2), (0.7, 1.0), (2.0, 2.6)))
    share = rng.uniform(0.55, 0.85)
    image = _windows(wall.image, rng, wall.u + shift, wall.y, period, low, high, share=share)
    return mix(image, wall.base * 0.6, between(wall.y, -1, 0.09))


def _brick(rng: np.random.Generator, wall: PlainWall) -> np.ndarray:
    u, y = wall.u, wall.y
    brick, width, height = jittered(rng, BRICK_COLOURS), 0.24, 0.085
    row = np.floor(y / height)
    shifted = u + 0.5 * width * (row % 2)
    tone = 0.80 + 0.35 * cell_values(shifted / width, row, wall.seed + 1)
    image = brick * tone[..., None] * wall.stain[..., None]
    mortar = np.maximum(line(y, height, 0.007), line(shifted, width, 0.007))
    image = mix(image, np.float32(rng.uniform(0.45, 0.7)), 0.7 * mortar)
    if rng.random() < 0.5:
        shift, period, low = rng.uniform(0, 2), rng.uniform(1.6, 2.6), rng.uniform(0.9, 1.2)
        return _windows(image, rng, u + shift, y, period, low, high=2.4, share=0.5)
    if rng.random() < 0.6:
        return _boxes(image, rng, u, y, count=1, bottom=(0.0, 1.2), size=(0.5, 1.0))
    return image


def _shopfront(rng: np.random.Generator, wall: PlainWall) -> np.ndarray:
    y = wall.y
    image = mix(wall.image, jittered(rng, OBJECT_COLOURS), between(y, 2.25, 2.9))
    shift, period, low = rng.uniform(0, 2), rng.uniform(1.4, 2.6), rng.uniform(0.25, 0.6)
    image = _windows(image, rng, wall.u + shift, y, period, low, high=2.15, share=0.9)
    return mix(image, wall.base * 0.6, between(y, -1, 0.2))


def _concrete(rng: np.random.Generator, wall: PlainWall) -> np.ndarray:
    u, y = wall.u, wall.y
    period = rng.uniform(1.0, 2.0)
    image = (wall.base * 0.4 + 0.33) * (0.88 + 0.2 * fractal_noise(u * 1.5, y * 1.0, wall.seed + 1))[..., None]
    image = image * (1 - 0.3 * np.maximum(line(u, period, 0.014), line(y, 1.2, 0.012)))[..., None]
    return _boxes(image, rng, u, y, count=int(rng.integers(0, 3)), bottom=(0.8, 1.6), size=(0.3, 0.8))


def _fence(rng: np.random.Generator, wall: PlainWall) -> np.ndarray:
    u, y = wall.u, wall.y
    leaves = foliage(rng, u, y, 0.9)
    image = mix(leaves, rgb(0.70, 0.76, 0.82), between(y, rng.uniform(1.8, 2.8), 99, 0.3))
    colour = jittered(rng, OBJECT_COLOURS)
    rails = np.maximum(line(y - 0.2, 9, 0.03), line(y - 1.4, 9, 0.03))
    bars = np.maximum(line(u, rng.uniform(0.1, 0.2), 0.014), rails)
    return mix(image, colour, bars * between(y, -1, 1.5))


def _hedge(rng: np.random.Generator, wall: PlainWall) -> np.ndarray:
    u, y = wall.u, wall.y
    top = rng.uniform(1.2, 3.0) + 0.25 * (value_noise(u * 2, u * 0, wall.seed) - 0.5)
    behind = wall.image * 0.9
    if rng.random() < 0.5:
        behind = behind * 0 + rgb(0.68, 0.75, 0.83)
    green = foliage(rng, u, y, rng.uniform(0.35, 0.8))
    green = green * np.clip(0.55 + 0.4 * y, 0.55, 1.1)[..., None]
    return mix(behind, green, np.clip((top - y) / 0.05, 0, 1).astype(np.float32))


_PAINTERS: dict[str, Callable[[np.random.Generator, PlainWall], np.ndarray]] = {
    "corridor": _corridor,
    "corner": _corridor,
    "panels": _panels,
    "lockers": _lockers,
    "shelves": _shelves,
    "windows": _indoor_windows,
    "brick": _brick,
    "shopfront": _shopfront,
    "concrete": _concrete,
    "fence": _fence,
    "hedge": _hedge,
}


def _windows(
    image: np.ndarray, rng: np.random.Generator, u: np.ndarray, y: np.ndarray,
    period: float, low: float, high: float, share: float,
) -> np.ndarray:  # fmt: skip
    """Window panes with frames, a soft reflection and a bar in the middle, one every `period` metres.

    `low` and `high` are the panes' edges in metres above the floor, `share` the part of the period that is glass.
    """
    seed = new_seed(rng)
    local = (u / period) - np.floor(u / period)
    left, right = period * (1 - share) / 2, period * (1 + share) / 2
    pane = between(local * period, left, right) * between(y, low, high)
    frame = between(local * period, left - 0.06, right + 0.06) * between(y, low - 0.06, high + 0.06)
    trim = np.float32(rng.uniform(0.25, 0.85))
    sky = np.clip((y - low) / (high - low), 0, 1)
    tint = rgb(0.30, 0.36, 0.42) * np.float32(rng.uniform(0.5, 1.5))
    glass = tint * (0.7 + 0.5 * sky + 0.35 * (value_noise(u * 1.3 + y, y * 0.7, seed) - 0.5))[..., None]
    image = mix(image, trim, frame)
    image = mix(image, np.clip(glass, 0, 1), pane)
    return mix(image, trim, pane * line(local * period - period / 2, period, 0.02))


def _boxes(
    image: np.ndarray, rng: np.random.Generator, u: np.ndarray, y: np.ndarray,
    count: int, bottom: tuple[float, float], size: tuple[float, float],
) -> np.ndarray:  # fmt: skip
    """`count` rectangles on the wall: posters, signs, doors, cupboards; limits of their lower edge and size, metres."""
    for _ in range(count):
        left, width = rng.uniform(-2.2, 2.0), rng.uniform(*size)
        low, height = rng.uniform(*bottom), rng.uniform(*size) * rng.uniform(0.7, 1.5)
        area = between(u, left, left + width) * between(y, low, low + height)
        colour = jittered(rng, OBJECT_COLOURS, 0.02)
        image = mix(image, colour * (0.95 + 0.1 * (y[..., None] - low)), area)
        if rng.random() < 0.5:
            inner = between(u, left + 0.15 * width, left + 0.85 * width)
            inner = inner * between(y, low + 0.55 * height, low + 0.9 * height)
            image = mix(image, np.clip(colour + rng.choice([-0.15, 0.2]), 0, 1).astype(np.float32), inner * 0.8)
    return image
