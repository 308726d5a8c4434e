"""Sinkhorn's iterations for one problem at a time, written entry by entry in Python's own floats."""

from __future__ import annotations

import math
from collections.abc import Sequence


def sinkhorn_plan(
    cost: Sequence[Sequence[float]],
    reg: float,
    num_iters: int,
    row_marginals: Sequence[float] | None = None,
    column_marginals: Sequence[float] | None = None,
) -> list[list[float]]:
    """The plan after exactly ``num_iters`` iterations from v = 1, for a cost of N rows and M columns."""
    rows, columns = len(cost), len(cost[0])
    a = row_marginals or [1 / rows] * rows
    b = column_marginals or [1 / columns] * columns
    kernel = [[math.exp(-cost[n][m] / reg) for m in range(columns)] for n in range(rows)]
    v = [1.0] * columns
    u = [0.0] * rows
    for _ in range(num_iters):
        u = [a[n] / sum(kernel[n][m] * v[m] for m in range(columns)) for n in range(rows)]
        v = [b[m] / sum(kernel[n][m] * u[n] for n in range(rows)) for m in range(columns)]
    return [[u[n] * kernel[n][m] * v[m] for m in range(columns)] for n in range(rows)]
