"""What lies at the horizon of an open place."""

from __future__ import annotations

import numpy as np

from fastreid_clip3d.synthcc.noise import cell_values, fractal_noise, value_noise
from fastreid_clip3d.synthcc.surfaces import between, foliage, mix, new_seed, rgb


def paint_far_scene(rng: np.random.Generator, kind: str, azimuth: np.ndarray, height: np.ndarray) -> np.ndarray:
    """What lies at the horizon of an open place; `azimuth` and `height` in metres at about 25 m."""
    seed = new_seed(rng)
    zenith = rgb(0.60, 0.70, 0.82) * np.float32(rng.uniform(0.8, 1.15))
    haze = rgb(0.82, 0.83, 0.83) * np.float32(rng.uniform(0.85, 1.05))
    share = np.clip(height / 10, 0, 1)[..., None]
    image = haze * (1 - share) + zenith * share
    if kind == "plaza" or rng.random() < 0.3:
        width = rng.uniform(4, 9)
        block = np.floor(azimuth / width)
        top = 3 + 9 * cell_values(block, block * 0, seed)
        colour = 0.35 + 0.35 * np.stack([cell_values(block, block * 0, seed + 1)] * 3, -1)
        tint = 0.1 * (cell_values(block, block * 0, seed + 2)[..., None] - 0.5)
        colour = colour * (rgb(1.0, 0.97, 0.92) + tint)
        rows = between((height / 1.6) % 1.0, 0.25, 0.8, 0.1) * between((azimuth / 1.2) % 1.0, 0.25, 0.75, 0.1)
        dark = 0.5 + 0.5 * cell_values(azimuth / 1.2, height / 1.6, seed + 4)[..., None]
        colour = colour * (1 - 0.4 * rows[..., None] * dark)
        image = mix(image, colour.astype(np.float32), np.clip((top - height) / 0.2, 0, 1).astype(np.float32))
    trees_end = rng.uniform(2, 6) if kind == "park" else rng.uniform(0, 2.5)
    crown = trees_end + 3.5 * (fractal_noise(azimuth * 0.25, azimuth * 0, seed + 8, 3) - 0.5)
    trees = foliage(rng, azimuth, height, 1.6) * 0.85 + 0.10
    image = mix(image, trees, np.clip((crown - height) / 0.25, 0, 1).astype(np.float32))
    if kind == "park":
        for _ in range(int(rng.integers(1, 4))):
            centre, radius = rng.uniform(-4, 4), rng.uniform(0.15, 0.4)
            trunk = between(azimuth + 0.1 * np.sin(height), centre - radius, centre + radius, 0.08)
            bark = rgb(0.26, 0.21, 0.17) * (0.8 + 0.4 * value_noise(azimuth * 6, height, seed))[..., None]
            image = mix(image, bark, trunk * between(height, -9, crown + 2))
    return image
