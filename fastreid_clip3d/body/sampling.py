"""Draws body shapes at random, as for the paper's 1,000 synthetic bodies (Section 3.4)."""

from __future__ import annotations

import numpy as np

from fastreid_clip3d.body.constants import FEMALE, MALE
from fastreid_clip3d.errors import ClearError

BETA_LIMIT = 2.5
"""Coefficients are kept within this many standard deviations: a linear model's extremes are no longer people."""


def sample_betas(
    count: int, seed: int | np.random.SeedSequence, num_betas: int = 10, limit: float = BETA_LIMIT
) -> np.ndarray:
    """Shape coefficients float32 [count, num_betas]: standard normal, clipped at +-`limit`; the same for a seed."""
    if count < 0 or num_betas < 1:
        raise ClearError(f"A count of at least 0 and 1 or more betas are needed, not {count} and {num_betas}.")
    drawn = np.random.default_rng(seed).standard_normal((count, num_betas))
    return drawn.clip(-limit, limit).astype(np.float32)


def sample_population(
    seed: int, females: int = 500, males: int = 500, num_betas: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Betas float32 [females + males, num_betas] and gender int8 [females + males] (0 female, 1 male), females first.

    The sexes have streams of their own: changing the number of one leaves the other's bodies as they were.
    """
    streams = np.random.SeedSequence(seed).spawn(2)
    betas = np.concatenate([sample_betas(n, stream, num_betas) for n, stream in zip((females, males), streams)])
    gender = np.repeat(np.array([FEMALE, MALE], dtype=np.int8), [females, males])
    return betas, gender
