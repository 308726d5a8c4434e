"""Smooth random fields that need no stored tables: hashed lattice values, interpolated."""

from __future__ import annotations

import numpy as np

_X, _Y = np.uint32(374761393), np.uint32(668265263)


def _product(lattice: np.ndarray, factor: np.uint32) -> np.ndarray:
    """Whole numbers, given as floats, times a factor modulo 2^32."""
    return lattice.astype(np.int64).astype(np.uint32) * factor


def _offset(seed: int) -> np.uint32:
    return np.uint32((seed * 2246822519) & 0xFFFFFFFF)


def _scrambled(h: np.ndarray) -> np.ndarray:
    """Uniform values in [0, 1) of hashes uint32; writes over them."""
    h ^= h >> np.uint32(13)
    h *= np.uint32(1274126177)
    h ^= h >> np.uint32(16)
    h &= np.uint32(0xFFFFFF)
    return h.astype(np.float32) * np.float32(1 / 0x1000000)


def cell_values(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """One uniform value per cell [floor(x), floor(y)]."""
    return _scrambled(np.asarray(_product(np.floor(x), _X) + _product(np.floor(y), _Y) + _offset(seed)))


def value_noise(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Smooth noise in [0, 1] with features of size 1."""
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    # The four corners of a cell share the products of the hash.
    left, low = _product(x0, _X), _product(y0, _Y) + _offset(seed)
    right, high = left + _X, low + _Y
    gx, gy = 1 - fx, 1 - fy
    top = _scrambled(left + low) * gx + _scrambled(right + low) * fx
    bottom = _scrambled(left + high) * gx + _scrambled(right + high) * fx
    return top * gy + bottom * fy


def fractal_noise(x: np.ndarray, y: np.ndarray, seed: int, octaves: int = 3) -> np.ndarray:
    """Sum of `octaves` value noises, each of half the size and half the weight; in [0, 1]."""
    total = np.zeros(np.broadcast(x, y).shape, dtype=np.float32)
    weight, norm = 1.0, 0.0
    for octave in range(octaves):
        total += weight * value_noise(x * 2**octave, y * 2**octave, seed + 101 * octave)
        norm += weight
        weight *= 0.5
    return total / norm
