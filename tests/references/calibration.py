"""Slow, obvious error rates: every pair looked at by itself, for every threshold anew."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.references.evaluation import is_removed


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Cosine similarity of two vectors; 0 where one has no length."""
    lengths = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(x * x for x in b))
    return math.fsum(x * y for x, y in zip(a, b)) / lengths if lengths else 0.0


def pairs(rule: str, queries: Sequence[dict], gallery: Sequence[dict]) -> tuple[list[float], list[float]]:
    """Similarities of the genuine and of the impostor pairs; items are dicts with pid, camid, clothes, feature."""
    genuine, impostor = [], []
    for query in queries:
        for item in gallery:
            if query["pid"] != item["pid"]:
                impostor.append(cosine(query["feature"], item["feature"]))
            elif not is_removed(rule, query, item):
                genuine.append(cosine(query["feature"], item["feature"]))
    return genuine, impostor


def rates(genuine: Sequence[float], impostor: Sequence[float], threshold: float) -> tuple[float, float]:
    """(false match rate, false non-match rate) of calling pairs of this similarity or more the same person."""
    wrong = sum(1 for similarity in impostor if similarity >= threshold - 1e-9)
    missed = sum(1 for similarity in genuine if not similarity >= threshold - 1e-9)
    return wrong / len(impostor), missed / len(genuine)


def recommended(genuine: Sequence[float], impostor: Sequence[float], asked: float) -> float | None:
    """The lowest threshold with five decimals whose false match rate is at most `asked`."""
    # Only the lowest, or one just above a similarity, can be the first that is strict enough.
    steps = {-100_000} | {math.floor(100_000 * similarity) + more for similarity in impostor for more in (-1, 0, 1, 2)}
    for step in sorted(steps):
        threshold = step / 100_000
        if -1 <= threshold <= 1 and rates(genuine, impostor, threshold)[0] <= asked:
            return threshold
    return None
