"""From image embeddings to the 16 phrase choices of an image (paper, Section 3.2, Eq. 1 and 2).

Shape letters: ... any leading dimensions, d embedding width, 32 rows of the phrase table, 16 pairs.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from fastreid_clip3d.vocabulary import NUM_PAIRS


def phrase_scores(features: torch.Tensor, phrase_table: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every image embedding with every phrase, always in float32, under mixed precision too.

    Args:
        features: g, image embeddings [..., d].
        phrase_table: text embeddings [32, d], rows in the order of ``vocabulary.PHRASES``.

    Returns:
        [..., 32] in -1..1; an all-zero embedding scores 0 with everything.
    """
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.float(), dim=-1) @ F.normalize(phrase_table.float(), dim=-1).T


def choose_phrases(scores: torch.Tensor) -> torch.Tensor:
    """The better phrase of each pair: 0 where phrase 1 scores strictly higher, otherwise 1 (Eq. 2).

    Args:
        scores: [..., 32].

    Returns:
        phrase_choices, int64 [..., 16].

    >>> scores = torch.zeros(32)
    >>> scores[0] = 0.2  # "muscular"; all other pairs are ties
    >>> choose_phrases(scores).tolist()
    [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    """
    pairs = scores.unflatten(-1, (NUM_PAIRS, 2))
    return 1 - (pairs[..., 0] > pairs[..., 1]).long()


def pack_choices(phrase_choices: np.ndarray) -> np.ndarray:
    """16 choices as the bits of one number: [..., 16] of 0/1 to uint16 [...], pair m in bit m."""
    return (phrase_choices.astype(np.uint16) << np.arange(NUM_PAIRS, dtype=np.uint16)).sum(-1, dtype=np.uint16)


def unpack_choices(packed: np.ndarray) -> np.ndarray:
    """The inverse of :func:`pack_choices`: uint16 [...] to int64 [..., 16]."""
    shifts = np.arange(NUM_PAIRS, dtype=np.uint16)
    return ((np.asarray(packed, dtype=np.uint16)[..., None] >> shifts) & 1).astype(np.int64)
