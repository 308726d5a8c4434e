"""Cosines that survive every finite vector, the zero vector too."""

from __future__ import annotations

import torch
from torch import Tensor

SHORTEST = 1e-6
"""A vector of this norm or less has no direction: its cosine with everything is 0 and it receives no gradient."""

_SHORTEST_OF_LARGEST = 1e-15
"""The same relative to the largest entry of all vectors, where float32 cannot square any more."""


def scale_and_norms(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors [..., D] divided by a power of two near their largest entry, and the norms [...] of the result.

    Their quotient is the unit vector; whoever needs cosines only divides the product by the norms and never holds it.
    Squares of finite entries stay finite that way, and a power of two rounds nothing. A vector without direction has
    the norm infinity, so that every quotient by it, and every gradient, is zero. At least float32.
    """
    if vectors.dtype != torch.float64:
        vectors = vectors.float()
    if vectors.numel() == 0:
        return vectors, vectors.sum(-1)
    with torch.no_grad():
        lowest, highest = torch.aminmax(vectors)
        exponent = torch.frexp(torch.maximum(highest, -lowest)).exponent
        scale = torch.ldexp(torch.ones_like(highest), exponent.clamp_min(-100) - 1)
    scaled = vectors / scale
    norms = torch.linalg.vector_norm(scaled, dim=-1)
    has_direction = (norms > _SHORTEST_OF_LARGEST) & (norms * scale > SHORTEST)
    return scaled, torch.where(has_direction, norms, torch.inf)
