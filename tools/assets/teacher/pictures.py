"""Rendered pictures of people with the true descriptors of their bodies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NUM_SHAPES = 26
"""Numbers of a body without words: 16 scores and 10 betas."""


class LabelledPictures(NamedTuple):
    """Pictures of people and their true descriptors.

    images: uint8 [N, H, W, 3], RGB; targets: float32 [N, 16], probability of phrase 1 (0 or 1 if certain);
    pids: int64 [N]; kinds: int64 [N], indices into the caller's list of kinds; shapes: float32 [N, 26], the body's
    scores and betas in standard deviations; shape_only: bool [N], a person in two pictures that share the body alone.
    """

    images: np.ndarray
    targets: np.ndarray
    pids: np.ndarray
    kinds: np.ndarray
    shapes: np.ndarray
    shape_only: np.ndarray

    @property
    def phrase_choices(self) -> np.ndarray:
        """int64 [N, 16], 0 = phrase 1."""
        return choices_of(self.targets)


def choices_of(targets: np.ndarray) -> np.ndarray:
    """The likelier phrase of each pair: int64 [N, 16], 0 = phrase 1. `targets` [N, 16]: probability of phrase 1."""
    return (targets <= 0.5).astype(np.int64)
