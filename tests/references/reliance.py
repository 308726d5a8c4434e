"""The parts of a score, one query and one match at a time, without chance in closed form and without resampling."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from tests.references.evaluation import score


def query_scores(
    queries: Sequence[dict], gallery: Sequence[dict], distances: Sequence[Sequence]
) -> dict[str, list[Fraction]]:
    """Score above chance of each query by SC and CC: every match alone with all pictures of other people."""
    found: dict[str, list[Fraction]] = {"SC": [], "CC": []}
    for query, row in zip(queries, distances):
        for rule, own in found.items():
            scores = []
            for place, item in enumerate(gallery):
                wanted = (item["clothes"] == query["clothes"]) == (rule == "SC")
                if item["pid"] != query["pid"] or item["camid"] == query["camid"] or not wanted:
                    continue
                kept = [at for at, other in enumerate(gallery) if other["pid"] != query["pid"] or at == place]
                shown = [gallery[at] for at in kept]
                here = score("nothing", [query], shown, [[row[at] for at in kept]])["mAP"]
                chance = sum(Fraction(1, rank) for rank in range(1, len(kept) + 1)) / len(kept)
                scores.append(here - chance)
            if scores:
                own.append(sum(scores) / len(scores))
    return found


def parts(natural: dict[str, list[Fraction]], shape_only: dict[str, list[Fraction]]) -> dict[str, float]:
    """Clothes, skin and hair, shape: differences of means over queries."""
    same, other, bare = (sum(values) / len(values) for values in (natural["SC"], natural["CC"], shape_only["CC"]))
    return {"clothes": float(same - other), "skin and hair": float(other - bare), "shape": float(bare)}
