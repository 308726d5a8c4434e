"""Slow, obvious evaluation: one query at a time, one item at a time, every order of equal distances written out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction


def is_removed(rule: str, query: dict, item: dict) -> bool:
    """Whether the gallery item is removed for the query; both are dicts with pid, camid, clothes."""
    if rule == "nothing" or query["pid"] != item["pid"]:
        return False
    if query["camid"] == item["camid"]:
        return True
    if rule == "CC":
        return query["clothes"] == item["clothes"]
    if rule == "SC":
        return query["clothes"] != item["clothes"]
    return False


def orders(distances: Sequence, matches: Sequence[bool]) -> Iterator[list[bool]]:
    """All ranking lists (is it a match?) that sort the distances, each as often as any other."""
    blocks = []
    for _, block in itertools.groupby(
        sorted(range(len(distances)), key=lambda i: distances[i]), lambda i: distances[i]
    ):
        flags = [matches[i] for i in block]
        places = itertools.combinations(range(len(flags)), sum(flags))
        blocks.append([[place in chosen for place in range(len(flags))] for chosen in places])
    for choice in itertools.product(*blocks):
        yield [flag for block in choice for flag in block]


def score_list(ranking: Sequence[bool], max_rank: int) -> tuple[Fraction, Fraction, list[int]]:
    """AP, INP and CMC of one ranking list with at least one match."""
    precisions, found, last = [], 0, 0
    for rank, match in enumerate(ranking, start=1):
        if match:
            found += 1
            last = rank
            precisions.append(Fraction(found, rank))
    cmc = [int(any(ranking[:rank])) for rank in range(1, max_rank + 1)]
    return sum(precisions) / len(precisions), Fraction(found, last), cmc


def score(
    rule: str, queries: Sequence[dict], gallery: Sequence[dict], distances: Sequence[Sequence], max_rank: int = 10
) -> dict:
    """mAP, mINP, CMC as fractions, valid queries; and the AP of the worst and best order of equal distances."""
    all_ap, all_inp, all_cmc, worst, best = [], [], [], [], []
    for query, row in zip(queries, distances):
        kept = [index for index, item in enumerate(gallery) if not is_removed(rule, query, item)]
        matches = [gallery[index]["pid"] == query["pid"] for index in kept]
        if not any(matches):
            continue
        scores = [score_list(ranking, max_rank) for ranking in orders([row[index] for index in kept], matches)]
        all_ap.append(sum(ap for ap, _, _ in scores) / len(scores))
        all_inp.append(sum(inp for _, inp, _ in scores) / len(scores))
        all_cmc.append([Fraction(sum(column), len(scores)) for column in zip(*(cmc for _, _, cmc in scores))])
        worst.append(min(ap for ap, _, _ in scores))
        best.append(max(ap for ap, _, _ in scores))
    count = len(all_ap)
    mean = lambda values: sum(values) / count if count else None  # noqa: E731
    return {
        "mAP": mean(all_ap),
        "mINP": mean(all_inp),
        "cmc": [mean(column) for column in zip(*all_cmc)],
        "valid_queries": count,
        "worst": mean(worst),
        "best": mean(best),
    }
