"""Open-set rates: how often a search answers with a person who is not in the gallery, by the gallery's size.

A search with threshold t answers "nobody" if no gallery picture reaches t. Its two errors (ISO/IEC 19795-1; NIST FRTE
1:N has them by gallery size):

* false positive identification rate (FPIR): the share of searches for people who are not in the gallery in which some
  picture reaches t;
* false negative identification rate (FNIR): the share of searches for people who are in it in which their most similar
  picture does not reach t, or is not the first of the list (rank 1).

Both are exact means over all galleries of N pictures that can be drawn from the other people's: no draw is random. For
FPIR we leave the query's own person out of the gallery. For FNIR one search has all of the person's own kept pictures
and N pictures of others.

Shape letters: Q queries, T thresholds, N pictures in a gallery, M pictures of other people that a query is compared
with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastreid_clip3d.evaluation.error_rates import THRESHOLDS, PairSource, Progress, reaches

FACTOR = 10
"""Ratio of two neighbouring gallery sizes."""


@dataclass(frozen=True)
class OpenSetRates:
    """The rates of one gallery size.

    Args:
        gallery_size: pictures of other people, N.
        nobody_below: cosine. The threshold with the smallest sum of both rates: if a search is for somebody in the
            gallery as often as not, "nobody" is the likelier answer below it. `fpir`, `fnir`: the rates there.
        strict_threshold: the lowest with at most the allowed rate of false positives; `strict_fnir`: FNIR there. Both
            are None where no threshold keeps that rate.
    """

    gallery_size: int
    nobody_below: float
    fpir: float
    fnir: float
    strict_threshold: float | None
    strict_fnir: float | None


def open_set_rates(
    pairs: PairSource, false_positive_rate: float = 0.01, progress: Progress | None = None
) -> dict[str, tuple[OpenSetRates, ...]]:
    """Each protocol's rates for galleries of 10, 100, ... and of all pictures; one pass over the pairs.

    Returns:
        by protocol; () where no query has a match, or no picture of other people.
    """
    sums = {protocol.name: {size: _Sums() for size in _sizes(pairs, protocol.name)} for protocol in pairs.protocols}
    for part in pairs.parts(progress):
        for row in np.flatnonzero(part.impostor.any(1)):
            others = np.sort(part.cells[row, part.impostor[row]])[::-1]
            mates = part.cells[row, part.genuine[row]]
            for size, own in sums[part.protocol.name].items():
                own.add(others, mates, size)
    return {
        name: tuple(own.rates(size, false_positive_rate) for size, own in by_size.items() if own.searches)
        for name, by_size in sums.items()
    }


def _sizes(pairs: PairSource, protocol: str) -> list[int]:
    """10, 100, ... and the number of pictures of other people that every query has (that has any)."""
    asked, shown = pairs.items_of_people(protocol)
    others = (shown.sum() - shown)[asked > 0]
    most = int(others[others > 0].min()) if others.any() else 0
    powers = [FACTOR**power for power in range(1, 10) if FACTOR**power < most]
    return [*powers, most] if most else []


class _Sums:
    """The sums over the queries of one gallery size.

    Attributes:
        strangers: searches for people who are not there; `best`: float64 [T], how often the best picture's highest
            reached threshold is this one. `searches`, `found`: the same of people who are there and stand first.
    """

    def __init__(self) -> None:
        self.strangers = self.searches = 0
        self.best, self.found = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))

    def add(self, others: np.ndarray, mates: np.ndarray, size: int) -> None:
        """One query: thresholds reached by pictures of others, int64 [M], descending, and of the person itself."""
        chances = first_of_draw(len(others), size)
        self.strangers += 1
        np.add.at(self.best, others[: len(chances)], chances)
        if len(mates):
            self.searches += 1
            best = mates.max()
            closer = int(np.searchsorted(-others, -best, side="left"))  # others that are more similar
            self.found[best] += 1 - chances[:closer].sum()

    def rates(self, size: int, allowed: float) -> OpenSetRates:
        """The rates at the best threshold and at the lowest that keeps the allowed rate of false positives."""
        fpir = np.cumsum(self.best[::-1])[::-1] / self.strangers
        fnir = 1 - np.cumsum(self.found[::-1])[::-1] / self.searches
        total = np.round(fpir + fnir, 9)
        lowest = np.flatnonzero(total == total.min())
        place = lowest[len(lowest) // 2]  # all between two similarities are equally good: the middle
        kept = np.flatnonzero(fpir <= allowed + 1e-12)
        strict = (float(THRESHOLDS[kept[0]]), round(float(fnir[kept[0]]), 9)) if len(kept) else (None, None)
        values = (round(float(value[place]), 9) for value in (THRESHOLDS, fpir, fnir))
        return OpenSetRates(size, *values, *strict)


def first_of_draw(count: int, size: int) -> np.ndarray:
    """The chance that the k-th of `count` pictures is the best of `size` drawn ones, float64 [count - size + 1].

    ``C(count - k, size - 1) / C(count, size)`` for k from 1.

    >>> first_of_draw(3, 2).round(3).tolist()
    [0.667, 0.333]
    """
    places = np.arange(1, count - size + 1, dtype=np.float64)
    return size / count * np.cumprod(np.r_[1.0, (count - places - size + 1) / (count - places)])


def rates_for(rates: tuple[OpenSetRates, ...], gallery_size: int) -> OpenSetRates | None:
    """The rates of the smallest measured gallery that is not smaller, else of the largest one; None without rates."""
    return next((own for own in rates if own.gallery_size >= gallery_size), rates[-1] if rates else None)


def nobody_verdict(
    similarity: float, gallery_size: int, rates: tuple[OpenSetRates, ...], dataset: str
) -> tuple[bool | None, str]:
    """Whether nobody is the likelier answer where the best match of a search has this similarity, and a sentence.

    Args:
        gallery_size: pictures. rates: of one protocol, measured on `dataset`.

    Returns:
        (None, "") without rates.
    """
    own = rates_for(rates, gallery_size)
    if own is None:
        return None, ""
    nobody = not reaches(similarity, own.nobody_below)
    relation, answer = ("below", "nobody in the gallery") if nobody else ("not below", "somebody in the gallery")
    return nobody, (
        f"More likely {answer}: the best similarity {similarity:.3f} is {relation} {own.nobody_below:.3f}. "
        f"On {dataset} with {own.gallery_size:,} pictures of others, {own.fpir:.0%} of the people who were not there "
        f"reached that, and {own.fnir:.0%} of those who were there missed it or did not stand first."
    )
