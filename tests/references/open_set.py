"""FPIR and FNIR by searching every gallery that can be drawn, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tests.references.calibration import cosine
from tests.references.evaluation import is_removed


def searches(rule: str, queries: Sequence[dict], gallery: Sequence[dict], size: int) -> tuple[list, list]:
    """Each query with each gallery of `size` pictures of others, as (weight, ...): the best stranger's similarity; the
    person's own best, and the best of the others."""
    strangers, mates = [], []
    for query in queries:
        others = [cosine(query["feature"], item["feature"]) for item in gallery if item["pid"] != query["pid"]]
        own = [
            cosine(query["feature"], item["feature"])
            for item in gallery
            if item["pid"] == query["pid"] and not is_removed(rule, query, item)
        ]
        drawn = list(itertools.combinations(others, size))
        for chosen in drawn:
            strangers.append((1 / len(drawn), max(chosen)))
            if own:
                mates.append((1 / len(drawn), max(own), max(chosen)))
    return strangers, mates


def rates(strangers: list, mates: list, threshold: float) -> tuple[float, float]:
    """(FPIR, FNIR) at rank 1; a similarity equal to a threshold or to another person's reaches it."""
    reached = sum(weight for weight, best in strangers if best >= threshold - 1e-9)
    missed = sum(weight for weight, own, other in mates if own < threshold - 1e-9 or own < other - 1e-9)
    return reached / sum(item[0] for item in strangers), missed / sum(item[0] for item in mates)
