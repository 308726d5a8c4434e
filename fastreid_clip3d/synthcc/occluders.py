"""What may stand between the camera and a person."""

from __future__ import annotations

import numpy as np

from fastreid_clip3d.synthcc.noise import fractal_noise
from fastreid_clip3d.synthcc.seeds import pick
from fastreid_clip3d.synthcc.surfaces import OBJECT_COLOURS, between, foliage, jittered, line, new_seed


def paint_occluder(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A pole, a box, a plant or a railing between the camera and the person.

    sRGB colours [height, width, 3] and coverage [height, width], both float32 in 0..1.
    """
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    kind = pick(rng, {"pole": 2, "box": 2, "plant": 2, "rail": 1})
    colour = jittered(rng, OBJECT_COLOURS)
    shade = np.ones_like(x)
    if kind == "pole":
        centre, radius = rng.uniform(0.1, 0.9), rng.uniform(0.03, 0.07)
        cover = between(x, centre - radius, centre + radius, 0.02)
        shade = 0.6 + 0.5 * np.sqrt(np.clip(1 - ((x - centre + 0.3 * radius) / (1.3 * radius)) ** 2, 0, 1))
    elif kind == "box":
        left, top = rng.uniform(-0.5, 0.6), rng.uniform(0.62, 0.85)
        cover = between(x, left, left + rng.uniform(0.5, 1.0), 0.02) * between(y, top, 2, 0.015)
        shade = 0.75 + 0.25 * (y < top + 0.03)
    elif kind == "plant":
        centre, top, seed = rng.choice([0.0, 1.0]) + rng.normal(0, 0.12), rng.uniform(0.5, 0.75), new_seed(rng)
        shape = ((x - centre) / 0.42) ** 2 + ((y - 1) / (1 - top)) ** 2
        cover = np.clip((1 - shape - 0.9 * (fractal_noise(x * 7, y * 14, seed, 2) - 0.5)) * 6, 0, 1)
        return foliage(rng, x * 2, y * 4, 0.35).astype(np.float32), cover.astype(np.float32)
    else:
        top = rng.uniform(0.55, 0.7)
        bars = line(x - rng.uniform(0, 0.1), rng.uniform(0.14, 0.25), 0.012) * between(y, top, 2, 0.01)
        cover = np.maximum(bars, between(y, top, top + 0.02, 0.008))
    return np.clip(colour * shade[..., None], 0, 1).astype(np.float32), cover.astype(np.float32)
