"""Smooth random fields that need no stored tables: hashed lattice values, interpolated."""

from __future__ import annotations

import numpy as np


def _hash(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Uniform values in [0, 1) for integer lattice points."""
    h = x.astype(np.uint32) * np.uint32(374761393) + y.astype(np.uint32) * np.uint32(668265263)
    h = h + np.uint32((seed * 2246822519) & 0xFFFFFFFF)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1274126177)
    h = h ^ (h >> np.uint32(16))
    return (h & np.uint32(0xFFFFFF)).astype(np.float32) / np.float32(0x1000000)


def cell_values(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """One uniform value per cell [floor(x), floor(y)]."""
    return _hash(np.floor(x).astype(np.int64), np.floor(y).astype(np.int64), seed)


def value_noise(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Smooth noise in [0, 1] with features of size 1."""
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    x0, y0 = x0.astype(np.int64), y0.astype(np.int64)
    top = _hash(x0, y0, seed) * (1 - fx) + _hash(x0 + 1, y0, seed) * fx
    bottom = _hash(x0, y0 + 1, seed) * (1 - fx) + _hash(x0 + 1, y0 + 1, seed) * fx
    return top * (1 - fy) + bottom * fy


def fractal_noise(x: np.ndarray, y: np.ndarray, seed: int, octaves: int = 3) -> np.ndarray:
    """Sum of `octaves` value noises, each of half the size and half the weight; in [0, 1]."""
    total = np.zeros(np.broadcast(x, y).shape, dtype=np.float32)
    weight, norm = 1.0, 0.0
    for octave in range(octaves):
        total += weight * value_noise(x * 2**octave, y * 2**octave, seed + 101 * octave)
        norm += weight
        weight *= 0.5
    return total / norm
