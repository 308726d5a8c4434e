"""How much of a model's score comes from clothes, from skin and hair, and from body shape.

We compare scores on two renderings of the same people, in the same poses, outfits and cameras: ``natural``, in which
skin and hair stay a person's own, and ``shape-only``, in which they are redrawn with every outfit.

    clothes        SC on natural - CC on natural
    skin and hair  CC on natural - CC on shape-only
    shape          CC on shape-only - chance

The sum is SC on natural above chance.

mAP cannot be compared between SC and CC, since a query has three matches by SC and up to nine by CC, and AP grows with
the number of matches. A model that sees shape only, with noise, has an SC mAP of 39 % and a CC mAP of 49 %. So we score
each match alone: AP of a query whose gallery holds this match and all pictures of other people, which is 1 / rank. A
query's score is the mean over its matches. Its chance is the same for each match: H(n + 1) / (n + 1) for n pictures of
others, where H is the harmonic number.

Shape letters: P people, B resamples, V pairs of a query and a match.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import CC, GENERAL, SC
from fastreid_clip3d.evaluation.ranking import DEFAULT_MAX_MEMORY, LabelledFeatures, evaluate

PARTS = ("clothes", "skin and hair", "shape")
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class PersonScores:
    """The scores of single matches above chance in one rendering, added up by person.

    Args:
        people: int64 [P], ascending.
        totals: float64 [2, P]: of the queries by SC and by CC, fractions. counts: int64 [2, P]: queries with a match.
        chance: mean over the queries by CC, a fraction.
    """

    people: np.ndarray
    totals: np.ndarray
    counts: np.ndarray
    chance: float

    def means(self, weights: np.ndarray) -> np.ndarray:
        """SC and CC, float64 [2, B], if each person counts as often as `weights` [B, P] say; NaN without a query."""
        with np.errstate(invalid="ignore"):
            return (self.totals @ weights.T) / (self.counts @ weights.T)


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap interval; fractions. All None: there is nothing to divide into shares."""

    value: float | None
    low: float | None
    high: float | None

    def text(self, digits: int = 1) -> tuple[str, str]:
        """Value and interval in percent; "-" for None."""
        if self.value is None or self.low is None or self.high is None:
            return "-", "-"
        return f"{100 * self.value:.{digits}f}", f"{100 * self.low:.{digits}f} to {100 * self.high:.{digits}f}"


@dataclass(frozen=True)
class Reliance:
    """What a model's score above chance is made of.

    Args:
        total: SC on natural above chance. chance: of a single match.
        parts: by the names of :data:`PARTS`; they add up to `total`, and may be negative.
        shares: the same as shares of their sum, where a negative part counts as 0.
        people: number of people. resamples, seed: of the bootstrap.
    """

    total: Estimate
    chance: float
    parts: dict[str, Estimate]
    shares: dict[str, Estimate]
    people: int
    resamples: int
    seed: int

    def table(self) -> str:
        """The table in Markdown, in percent."""
        percent = f"{CONFIDENCE:.0%} interval"
        rows: list[tuple[str, ...]] = [
            (name, *self.parts[name].text(2), *self.shares[name].text(0)) for name in self.parts
        ]
        rows.append(("together", *self.total.text(2), "", ""))
        headers = ("matched by", "score above chance", percent, "share", percent)
        return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)

    def sentence(self, model: str) -> str:
        """The answer in words."""
        if self.total.low is None or self.total.low <= 0:
            return (
                f"{model} finds the same person in the same clothes no better than chance: there is nothing to divide."
            )
        order = sorted(PARTS, key=lambda name: -(self.shares[name].value or 0))
        percents = [f"{self.shares[name].text(0)[0]} %" for name in order]
        words = (
            f"{model} matches mostly {order[0]}: {percents[0]} of its score above chance is {order[0]}, "
            f"{percents[1]} {order[1]} and {percents[2]} {order[2]}."
        )
        unclear = [name for name in PARTS if (low := self.parts[name].low) is None or low <= 0]
        return f"{words} Not clearly above zero: {', '.join(unclear)}." if unclear else words

    def as_dict(self) -> dict[str, Any]:
        """For json; fractions."""
        return dataclasses.asdict(self)


def person_scores(
    query: LabelledFeatures,
    gallery: LabelledFeatures,
    max_memory: float = DEFAULT_MAX_MEMORY,
    device: str = "cpu",
) -> PersonScores:
    """Scores each match alone and adds up by person.

    Args:
        query, gallery: with clothes ids. A match shows the query's person in another camera.
        max_memory: MiB beyond the features. device: where distances are computed.

    Raises:
        ClearError: there are no clothes ids.

    One query and three gallery pictures, the nearest first: a stranger, then the person in the same clothes, then in
    other clothes. Each match is second if it is scored alone: 1 / 2; by chance (1/1 + 1/2) / 2 = 3 / 4.

    >>> query = LabelledFeatures(torch.tensor([[1.0, 0.0]]), np.array([7]), np.array([1]), np.array([1]))
    >>> features = torch.tensor([[1.0, 0.1], [1.0, 0.5], [1.0, 0.9]])
    >>> gallery = LabelledFeatures(features, np.array([8, 7, 7]), np.array([2, 2, 3]), np.array([5, 1, 2]))
    >>> found = person_scores(query, gallery)
    >>> found.chance, found.totals.tolist(), found.counts.tolist()
    (0.75, [[-0.25], [-0.25]], [[1], [1]])
    """
    if query.clothes_ids is None or gallery.clothes_ids is None:
        raise ClearError("Clothes, skin and shape can be told apart only with clothes ids of query and gallery.")
    matches = (query.pids[:, None] == gallery.pids) & (query.camids[:, None] != gallery.camids)
    number, item = np.nonzero(matches)
    same = query.clothes_ids[number] == gallery.clothes_ids[item]
    # One query per pair. Each gallery picture gets clothes of its own, so SC keeps the pair's match alone.
    pairs = LabelledFeatures(query.features[torch.from_numpy(number)], query.pids[number], query.camids[number], item)
    alone = dataclasses.replace(gallery, clothes_ids=np.arange(len(gallery)))
    scores = evaluate(pairs, alone, [SC], max_memory=max_memory, device=device)["SC"].average_precisions
    others = (query.pids[:, None] != gallery.pids).sum(1)
    chances = harmonic_mean_of_ranks(others)
    above = scores - chances[number]
    people, person = np.unique(query.pids, return_inverse=True)
    totals, counts = np.zeros((2, len(people))), np.zeros((2, len(people)), dtype=np.int64)
    for row, wanted in enumerate((same, ~same)):
        found = np.bincount(number[wanted], minlength=len(query))
        sums = np.bincount(number[wanted], weights=above[wanted], minlength=len(query))
        has = found > 0
        np.add.at(totals[row], person[has], sums[has] / found[has])
        np.add.at(counts[row], person[has], 1)
    return PersonScores(people, totals, counts, float(chances.mean()))


def harmonic_mean_of_ranks(others: np.ndarray) -> np.ndarray:
    """The mean of 1 / rank of a picture that stands anywhere among `others` more: H(n + 1) / (n + 1), float64.

    >>> harmonic_mean_of_ranks(np.array([0, 1, 3])).round(4).tolist()
    [1.0, 0.75, 0.5208]
    """
    harmonic = np.cumsum(1 / np.arange(1, int(others.max(initial=0)) + 2))
    return harmonic[others] / (others + 1)


def divide(natural: PersonScores, shape_only: PersonScores, seed: int = 0, resamples: int = RESAMPLES) -> Reliance:
    """Divides the score into parts, with bootstrap intervals over people.

    Each resample draws P people with replacement, the same ones in both renderings. A resample in which no query has a
    match by one of the rules is left out; that happens with a few people only.

    Raises:
        ClearError: other people in the two renderings, fewer than two people, or no query has a match by one of the
            rules.
    """
    if not np.array_equal(natural.people, shape_only.people):
        raise ClearError("The two renderings do not show the same people. Render both with the same seed.")
    if not (natural.counts.sum(1).all() and shape_only.counts.sum(1).all()):
        raise ClearError("No query has a match in the same clothes, or none in other clothes: render more pictures.")
    count = len(natural.people)
    if count < 2:
        raise ClearError(
            f"A score above chance needs at least two people; there is {count}, whom nobody could be confused with."
        )
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = np.concatenate([np.ones((1, count), dtype=np.int64), drawn])  # row 0: everyone once, the estimate
    same, other = natural.means(weights)
    _, bare = shape_only.means(weights)
    parts = np.stack([same - other, other - bare, bare]).round(12) + 0.0  # without -0.0 and the last bits
    positive = parts.clip(min=0)
    with np.errstate(invalid="ignore"):
        shares = positive / positive.sum(0)
    return Reliance(
        total=_estimate(same),
        chance=natural.chance,
        parts=dict(zip(PARTS, map(_estimate, parts))),
        shares=dict(zip(PARTS, map(_estimate, shares))),
        people=count,
        resamples=resamples,
        seed=seed,
    )


def _estimate(values: np.ndarray) -> Estimate:
    """Value and percentile interval of [1 + B] numbers, the estimate first; NaN are left out."""
    if np.isnan(values[0]):
        return Estimate(None, None, None)
    low, high = np.nanquantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(*(round(float(value), 9) + 0.0 for value in (values[0], low, high)))


def scores_with_chance(
    query: LabelledFeatures, gallery: LabelledFeatures, max_memory: float = DEFAULT_MAX_MEMORY, device: str = "cpu"
) -> dict[str, dict[str, float | None]]:
    """The usual mAP by general, SC and CC, and that of chance, in percent.

    Chance is exact: where all features are equal, the evaluation gives the mean over all orders.
    """
    protocols = (GENERAL, SC, CC)
    equal = [dataclasses.replace(side, features=torch.ones(len(side), 1)) for side in (query, gallery)]
    found = evaluate(query, gallery, protocols, max_memory=max_memory, device=device)
    chance = evaluate(equal[0], equal[1], protocols, max_memory=max_memory)
    return {
        name: {"mAP": result.percentages()["mAP"], "chance": chance[name].percentages()["mAP"]}
        for name, result in found.items()
    }
