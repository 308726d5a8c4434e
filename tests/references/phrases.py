"""Slow, obvious phrase scores: one patch and one phrase at a time, and precision counted by hand."""

from __future__ import annotations

from collections.abc import Sequence

from tests.references.calibration import cosine


def score(patches: Sequence[Sequence[float]], phrase: Sequence[float], opposite: Sequence[float]) -> float:
    """How much nearer the patches are to a phrase than to its opposite, on average."""
    margins = [cosine(patch, phrase) - cosine(patch, opposite) for patch in patches]
    return sum(margins) / len(margins)


def precision_at_10(scores: Sequence[float], fits: Sequence[bool]) -> float:
    """The share of people whom a phrase fits among the ten with the highest scores."""
    ranked = sorted(range(len(scores)), key=lambda person: -scores[person])
    return sum(fits[person] for person in ranked[:10]) / 10


def auc(scores: Sequence[float], fits: Sequence[bool]) -> float:
    """How often a person whom the phrase fits scores higher than one whom it does not."""
    wins = [
        1.0 if scores[a] > scores[b] else 0.5 if scores[a] == scores[b] else 0.0
        for a in range(len(scores)) if fits[a] for b in range(len(scores)) if not fits[b]
    ]  # fmt: skip
    return sum(wins) / len(wins)
