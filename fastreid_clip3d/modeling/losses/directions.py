"""Cosines that survive every finite vector, the zero vector too."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_ENTRY = 1e-6
"""A vector with no entry above this has no direction: its cosine with everything is 0 and it receives no gradient."""


def scale_and_norms(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors [..., D] divided by their largest entry, and the norms [...] of the result, at least 1.

    Their quotient is the unit vector; whoever needs cosines only divides the product by the norms and never holds it.
    Squares of finite entries stay finite that way. A vector without direction becomes zero with norm 1. At least float32.
    """
    if vectors.dtype != torch.float64:
        vectors = vectors.float()
    largest = vectors.detach().abs().amax(-1, keepdim=True)
    has_direction = largest > SMALLEST_ENTRY
    scaled = vectors / torch.where(has_direction, largest, torch.inf)
    return scaled, torch.where(has_direction[..., 0], scaled.square().sum(-1), 1.0).sqrt()
