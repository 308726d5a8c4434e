"""Chamfer distance by looking at every pair of points."""

from __future__ import annotations

import numpy as np


def chamfer(first: np.ndarray, second: np.ndarray) -> float:
    """Mean squared distance to the nearest point of the other set, both directions added; [n, 3] and [m, 3]."""
    total = 0.0
    for points, others in ((first, second), (second, first)):
        total += sum(min(((point - other) ** 2).sum() for other in others) for point in points) / len(points)
    return float(total)
