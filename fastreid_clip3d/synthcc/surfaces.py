"""Colours and patterns of which scenes are painted.

Colours are sRGB in 0..1; lengths in metres.
"""

from __future__ import annotations

import numpy as np

from fastreid_clip3d.synthcc.noise import fractal_noise
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


def jittered(rng: np.random.Generator, palette: tuple[Colour, ...], spread: float = 0.012) -> np.ndarray:
    """A colour of the palette, a little lighter or darker and shifted by about `spread`."""
    colour = rgb(*palette[int(rng.integers(len(palette)))]) * np.float32(np.exp(rng.normal(0, 0.12)))
    return np.clip(colour + rng.normal(0, spread, 3), 0.04, 0.95).astype(np.float32)


def rgb(*channels: float) -> np.ndarray:
    """A colour, float32 [3]."""
    return np.array(channels, dtype=np.float32)


def line(position: np.ndarray, period: float, width: float) -> np.ndarray:
    """1 on lines of `width` at multiples of `period`, soft edges."""
    distance = np.abs(position - np.round(position / period) * period)
    return np.clip((width - distance) / (0.5 * width + 0.006) + 0.5, 0, 1).astype(np.float32)


def between(value: np.ndarray, low: float | np.ndarray, high: float | np.ndarray, soft: float = 0.012) -> np.ndarray:
    """1 between the limits, 0 outside, with edges `soft` wide."""
    return (np.clip((value - low) / soft + 0.5, 0, 1) * np.clip((high - value) / soft + 0.5, 0, 1)).astype(np.float32)


def mix(image: np.ndarray, colour: np.ndarray | np.float32, amount: np.ndarray) -> np.ndarray:
    """The image with a share `amount` [H, W] of another colour or picture."""
    return image + (colour - image) * amount[..., None]


def new_seed(rng: np.random.Generator) -> int:
    """A seed for the noise of one surface."""
    return int(rng.integers(2**31))


def foliage(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    """Leaf clumps: light above, dark below, at three sizes."""
    seed, base = new_seed(rng), jittered(rng, FOLIAGE_COLOURS, 0.02)
    clumps = fractal_noise(u / size, v / size, seed, 2)
    leaves = fractal_noise(u / size * 5, v / size * 5, seed + 5, 2)
    light = 0.62 + 0.85 * clumps * clumps + 0.5 * (leaves - 0.5)
    return np.clip(base * light[..., None] * rgb(1.05, 1.0, 0.9), 0.02, 1)
