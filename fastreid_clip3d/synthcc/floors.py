"""Floors of scenes, and a person's shadow on them."""

from __future__ import annotations

import numpy as np

from fastreid_clip3d.synthcc.noise import cell_values, fractal_noise, value_noise
from fastreid_clip3d.synthcc.surfaces import FLOOR_COLOURS, FOLIAGE_COLOURS, between, jittered, line, mix, new_seed, rgb


def paint_floor(rng: np.random.Generator, kind: str, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """sRGB colours [H, W, 3] in 0..1 of a floor of this kind at metres `x` and `z`, both [H, W]."""
    base = jittered(rng, FLOOR_COLOURS)
    seed = new_seed(rng)
    tone = 0.94 + 0.12 * fractal_noise(x * 0.8, z * 0.8, seed)
    if kind == "tiles":
        size = rng.uniform(0.3, 0.8)
        tone = tone * (0.96 + 0.08 * cell_values(x / size + 0.5, z / size + 0.5, seed + 7))
        tone = tone * (1 - 0.22 * np.maximum(line(x, size, 0.010), line(z, size, 0.014)))
    elif kind == "wood":
        size = rng.uniform(0.10, 0.2)
        tone = tone * (0.88 + 0.2 * cell_values(x / size, z / 1.4, seed + 7)) * (1 - 0.2 * line(x, size, 0.006))
        base = np.clip(base * rgb(1.12, 0.98, 0.80), 0, 1)
    elif kind == "paving":
        size = rng.uniform(0.35, 0.7)
        row = np.floor(z / size)
        tone = tone * (0.92 + 0.14 * cell_values(x / size + 0.5 * (row % 2), row, seed + 7))
        tone = tone * (1 - 0.2 * np.maximum(line(z, size, 0.014), line(x + 0.5 * size * (row % 2), size, 0.012)))
    elif kind == "asphalt":
        base = np.float32(rng.uniform(0.28, 0.46)) * rgb(1.0, 1.0, 1.02)
        tone = tone * (0.95 + 0.10 * value_noise(x * 9, z * 9, seed + 7))
        if rng.random() < 0.4:
            stripe = between(x * np.cos(0.5) + z * np.sin(0.5), 0.9, 1.02)
            return mix(base * tone[..., None], np.float32(0.8), 0.8 * stripe)
    elif kind == "grass":
        base = jittered(rng, FOLIAGE_COLOURS, 0.02)
        tone = 0.75 + 0.5 * fractal_noise(x * 4, z * 3, seed, 3)
        if rng.random() < 0.6:  # a path of gravel
            path = between(x + 0.3 * z + 0.25 * value_noise(z, z * 0, seed + 3), -0.9, 1.1, 0.15)
            return mix(base * tone[..., None], jittered(rng, FLOOR_COLOURS) * 1.05, path * (0.9 + 0.1 * tone))
    return base * tone[..., None]


def shadow_factor(x: np.ndarray, z: np.ndarray, feet: np.ndarray, light: np.ndarray, strength: float) -> np.ndarray:
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
