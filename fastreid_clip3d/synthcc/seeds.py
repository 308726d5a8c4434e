"""One random stream for each thing that is drawn, so that no image depends on which other images were made."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np


def stream(seed: int, *keys: int | str) -> np.random.Generator:
    """A generator that depends on `seed` and the path of keys only (words enter through their CRC-32).

    ``stream(0, "train", 12, "outfit", 3)`` is the same on every machine, for any number of workers and in any order
    of calls.
    """
    # SeedSequence makes the same of [1] and [1, 0], so the number of words is a word, too.
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(seed), len(words), *words])))


def pick(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """One key of `weights`, with probability proportional to its value."""
    values = np.cumsum(np.fromiter(weights.values(), dtype=np.float64))
    place = np.searchsorted(values, rng.random() * values[-1], side="right")
    return list(weights)[min(int(place), len(weights) - 1)]
