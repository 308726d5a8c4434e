"""Winding number of a closed mesh around a point: the sum of signed solid angles (van Oosterom and Strackee)."""

from __future__ import annotations

import numpy as np


def winding_number(vertices: np.ndarray, faces: np.ndarray, point: np.ndarray) -> float:
    """1 inside a closed mesh wound outwards, 0 outside."""
    a, b, c = (vertices[faces] - point).swapaxes(0, 1)
    la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
    volume = (a * np.cross(b, c)).sum(1)
    below = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
    return float((2.0 * np.arctan2(volume, below)).sum() / (4.0 * np.pi))
