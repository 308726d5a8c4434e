"""NFC, neighbour feature centralisation: each feature moves towards its mutual nearest neighbours. No training.

Yuan et al., "From Poses to Identity: Training-Free Person Re-Identification via Feature Centralization" (Pose2ID),
CVPR 2025, arXiv 2503.00938. The paper's demo applies it to the query among itself and to the gallery among itself, with
k1 = k2 = 2 and L2-normalised features before and after; so do we. It uses no ids.

Shape letters: N images, D features.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from fastreid_clip3d.errors import ClearError

_BLOCK_PAIRS = 8 << 20


def check_neighbours(k1: int, k2: int) -> None:
    """Refuses numbers of neighbours below 1."""
    if k1 < 1 or k2 < 1:
        raise ClearError(f"TEST.NFC: K1 {k1} and K2 {k2} must be 1 or more.")


def centralised(features: torch.Tensor, k1: int = 2, k2: int = 2) -> torch.Tensor:
    """``normalise(f_i + sum of f_j)`` over the mutual neighbours j of each image i: float32 [N, D].

    Image j is a mutual neighbour of i if j is among the k1 nearest of i, and i is among the k2 nearest of j. An image
    is no neighbour of itself.

    Args:
        features: [N, D], any length; we normalise them first.

    Raises:
        ClearError: k1 or k2 below 1.

    The first two are each other's nearest, and the third has no mutual neighbour:

    >>> features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> centralised(features, 1, 1).round(decimals=3)
    tensor([[0.9490, 0.3160],
            [0.9490, 0.3160],
            [0.0000, 1.0000]])
    """
    check_neighbours(k1, k2)
    normalised = F.normalize(features.float(), dim=1)
    most = min(max(k1, k2), len(features) - 1)
    if most < 1:
        return normalised
    nearest, _ = nearest_images(normalised, normalised, most, others_only=True)
    images = np.arange(len(features))[:, None]
    # Pairs (i, j) as numbers i * N + j: a pair is mutual if its reverse is among the other list.
    forward = (images * len(features) + nearest[:, :k1]).ravel()
    backward = (nearest[:, :k2] * len(features) + images).ravel()
    rows, columns = np.divmod(np.intersect1d(forward, backward), len(features))
    total = normalised.double().index_add(0, torch.from_numpy(rows), normalised[torch.from_numpy(columns)].double())
    return F.normalize(total, dim=1).float()


def nearest_images(
    features: torch.Tensor, pool: torch.Tensor, count: int, others_only: bool = False
) -> tuple[np.ndarray, torch.Tensor]:
    """The `count` images of `pool` with the largest dot products, largest first, a block of features at a time.

    Args:
        features: float32 [N, D]. pool: float32 [M, D]. count: at most M, with `others_only` at most M - 1.
        others_only: `pool` is `features`, and an image is no neighbour of itself.

    Returns:
        int64 [N, count] and the dot products, float32 [N, count].
    """
    step = min(max(1, _BLOCK_PAIRS // max(len(pool), 1)), len(features))
    rows, values = torch.empty((len(features), count), dtype=torch.int64), torch.empty((len(features), count))
    # All blocks use one matrix: results that are allocated between such matrices keep malloc from using their memory
    # again, and the process would grow to all products [N, M].
    matrix = torch.empty((step, len(pool)))
    for start in range(0, len(features), max(step, 1)):
        block = slice(start, min(start + step, len(features)))
        products = torch.mm(features[block], pool.t(), out=matrix[: block.stop - start])
        if others_only:
            products.diagonal(start).fill_(-torch.inf)
        torch.topk(products, count, dim=1, out=(values[block], rows[block]))
    return rows.numpy(), values
