"""The optimal transport loss image by image: Psi on each image's own 16 rows, cosines pair by pair."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from .sinkhorn import sinkhorn_plan


def cosine(first: list[float], second: list[float]) -> float:
    product = sum(x * y for x, y in zip(first, second))
    return product / math.sqrt(sum(x * x for x in first)) / math.sqrt(sum(y * y for y in second))


def cost_matrix(features: Tensor, phrases: Tensor) -> list[list[float]]:
    """1 - cosine of each patch [N, d'] with each projected phrase [M, d']."""
    return [[1 - cosine(f, h) for h in phrases.tolist()] for f in features.tolist()]


def ot_loss(
    local_features: Tensor,
    phrase_table: Tensor,
    phrase_choices: Tensor,
    psi: Callable[[Tensor], Tensor],
    reg: float,
    num_iters: int,
) -> float:
    """Mean of <T, C> over the images [B, N, d'], from the table of text embeddings [32, d] and choices [B, 16]."""
    total = 0.0
    for features, choices in zip(local_features, phrase_choices.tolist()):
        phrases = psi(phrase_table[[2 * pair + choice for pair, choice in enumerate(choices)]])
        cost = cost_matrix(features, phrases)
        plan = sinkhorn_plan(cost, reg, num_iters)
        total += sum(t * c for plan_row, cost_row in zip(plan, cost) for t, c in zip(plan_row, cost_row))
    return total / len(local_features)
