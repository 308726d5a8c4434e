"""Counts the pairs of one person and of different people that reach a similarity: false matches and non-matches.

A threshold t says "same person" of a pair whose cosine similarity is t or more. Its two errors:

* false match rate: the share of *impostor* pairs (a query and a gallery item of another person) that reach t;
* false non-match rate: the share of *genuine* pairs (the same person) that do not.

Pairs that a protocol removes count nowhere. Thresholds are multiples of :data:`STEP`. We count the pairs between two
thresholds, so both rates are exact at each of them; only the choice of a threshold is rounded (up). The counts take a
few MB for any number of pairs.

Shape letters: Q queries, G gallery items, T thresholds, P people, R bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from fastreid_clip3d.evaluation.distances import FeatureDistances, compute_device
from fastreid_clip3d.evaluation.protocols import Protocol
from fastreid_clip3d.evaluation.ranking import DEFAULT_MAX_MEMORY, Ids, LabelledFeatures, check_features, taking_part

STEP = 1e-5
TOLERANCE = 1e-9
"""A similarity this far below a threshold reaches it: sums that are equal on paper differ in their last bits."""
_STEPS = round(1 / STEP)
THRESHOLDS = np.arange(-_STEPS, _STEPS + 1) / _STEPS
"""All thresholds, float64 [200001], ascending from -1 to 1."""
_BLOCK_PAIRS = 4 << 20
DRAWS = 1000
Z = 1.959964  # of a two-sided interval of 95 %

Progress = Callable[[Iterable, int], Iterable]


def reaches(similarity: np.ndarray | float, threshold: float) -> np.ndarray | bool:
    """Whether a similarity is `threshold` or more."""
    return similarity >= threshold - TOLERANCE


def cells_of(similarities: np.ndarray) -> np.ndarray:
    """The place in :data:`THRESHOLDS` of the highest threshold that each similarity reaches, int64."""
    cells = np.floor((similarities + TOLERANCE) * _STEPS).astype(np.int64) + _STEPS
    return np.clip(cells, 0, 2 * _STEPS)  # rounding may leave a cosine a little outside [-1, 1]


@dataclass
class PairCounts:
    """The pairs of one protocol by the highest threshold that they reach, int64 [200001] each."""

    genuine: np.ndarray
    impostor: np.ndarray

    @property
    def num_genuine(self) -> int:
        return int(self.genuine.sum())

    @property
    def num_impostor(self) -> int:
        return int(self.impostor.sum())

    @property
    def false_matches(self) -> np.ndarray:
        """Impostor pairs that reach each threshold, int64 [200001]."""
        return np.cumsum(self.impostor[::-1])[::-1]

    @property
    def false_non_matches(self) -> np.ndarray:
        """Genuine pairs that do not reach each threshold, int64 [200001]."""
        return np.cumsum(self.genuine) - self.genuine

    def place_at(self, false_match_rate: float) -> int | None:
        """The place of the lowest threshold with at most this false match rate.

        None where too many pairs of different people have similarity 1, as copies of one picture under two people.
        """
        # As integers: 0.01 * 300 is not 3 in floating point.
        allowed = int(np.floor(false_match_rate * self.num_impostor * (1 + 1e-12)))
        strict = np.flatnonzero(self.false_matches <= allowed)
        return int(strict[0]) if len(strict) else None


@dataclass(frozen=True)
class _Part:
    """The pairs of a block of queries that one protocol keeps.

    Args:
        cells: int64 [B, G] for all pairs; `genuine`, `impostor`: bool [B, G].
        query_people: int64 [B]; `gallery_people`: int64 [G], from 0.
    """

    protocol: Protocol
    cells: np.ndarray
    genuine: np.ndarray
    impostor: np.ndarray
    query_people: np.ndarray
    gallery_people: np.ndarray


class PairSource:
    """Similarities of all pairs, a block of queries at a time, and the pairs that each protocol keeps.

    Args:
        query, gallery: of one id space. Copies in the gallery have equal similarities (see ``distances``).
        protocols: for a single-shot protocol we count its whole gallery.
        max_memory: MiB beyond the features, roughly.

    Raises:
        ClearError: a protocol needs clothes ids and there are none, features of different widths, or features that are
            not finite.
    """

    def __init__(
        self,
        query: LabelledFeatures,
        gallery: LabelledFeatures,
        protocols: Sequence[Protocol],
        max_memory: float = DEFAULT_MAX_MEMORY,
        device: str = "cpu",
    ) -> None:
        check_features(query, gallery)
        self.protocols = list(protocols)
        self._ids = Ids(query, gallery, protocols)
        self.query_people, self.gallery_people = self._ids.query_pids, self._ids.gallery_pids
        self.num_people = int(max(self.query_people.max(initial=-1), self.gallery_people.max(initial=-1))) + 1
        self._taking_part = {protocol.name: taking_part(protocol, query, gallery) for protocol in protocols}
        self._source = FeatureDistances(query.features, gallery.features, "cosine", compute_device(device), max_memory)
        pairs = min(_BLOCK_PAIRS, max_memory * (1 << 20) / 64)  # about 64 bytes per pair at the peak
        self._step = max(1, int(pairs // max(len(gallery), 1)))
        self._num_query = len(query)

    def items_of_people(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of queries and gallery items per person that a protocol compares, int64 [P] each."""
        asked, shown = self._taking_part[name]
        return (
            np.bincount(self.query_people[asked], minlength=self.num_people),
            np.bincount(self.gallery_people[shown], minlength=self.num_people),
        )

    def parts(self, progress: Progress | None = None) -> Iterator[_Part]:
        """Every protocol's part of every block of queries."""
        starts = range(0, self._num_query, self._step)
        for start in progress(starts, len(starts)) if progress else starts:
            block = np.arange(start, min(start + self._step, self._num_query))
            distances = self._source.true_distances(block, self._source.rows(block).cpu().numpy())
            cells = cells_of(1.0 - distances)
            people, items = self.query_people[block], np.arange(len(self.gallery_people))
            same_person = people[:, None] == self.gallery_people[None]
            for protocol in self.protocols:
                asked, shown = self._taking_part[protocol.name]
                counted = asked[block][:, None] & shown[None]
                genuine = counted & same_person & ~self._ids.removed(protocol.rule, block[:, None], items[None])
                yield _Part(protocol, cells, genuine, counted & ~same_person, people, self.gallery_people)


def count_pairs(pairs: PairSource, progress: Progress | None = None) -> dict[str, PairCounts]:
    """Each protocol's pairs by the threshold that they reach; one pass over the similarities."""
    size = len(THRESHOLDS)
    counts = {protocol.name: PairCounts(*np.zeros((2, size), dtype=np.int64)) for protocol in pairs.protocols}
    for part in pairs.parts(progress):
        into = counts[part.protocol.name]
        into.genuine += np.bincount(part.cells[part.genuine], minlength=size)
        into.impostor += np.bincount(part.cells[part.impostor], minlength=size)
    return counts


def intervals(
    pairs: PairSource, places: dict[str, int], draws: int = DRAWS, seed: int = 0, progress: Progress | None = None
) -> dict[str, dict[str, tuple[float, float]]]:
    """Rough 95 % intervals of both rates at one threshold of each protocol; one more pass over the similarities.

    The pairs of a person are alike, so an interval from the number of pairs would be far too narrow. We draw people
    with replacement, `draws` times; a genuine pair counts as often as its person is drawn, an impostor pair as both
    of its people. Where no pair or every pair is wrong, the draws do not differ: there the bound is Wilson's with the
    number of people (genuine) or of pairs of people (impostor) as trials.

    Args:
        places: by protocol, the threshold's place in :data:`THRESHOLDS`.

    Returns:
        by protocol ``false_match_rate`` and ``false_non_match_rate``: (low, high).
    """
    people = pairs.num_people
    genuine = {name: np.zeros((2, people)) for name in places}  # all, missed
    matched = {name: sparse.csr_matrix((people, people)) for name in places}
    for part in pairs.parts(progress):
        name = part.protocol.name
        if name not in places:
            continue
        rows, columns = np.nonzero(part.genuine)
        persons = part.query_people[rows]
        missed = part.cells[rows, columns] < places[name]
        genuine[name][0] += np.bincount(persons, minlength=people)
        genuine[name][1] += np.bincount(persons[missed], minlength=people)
        rows, columns = np.nonzero(part.impostor & (part.cells >= places[name]))
        coordinates = (part.query_people[rows], part.gallery_people[columns])
        matched[name] += sparse.coo_matrix((np.ones(len(rows)), coordinates), shape=(people, people)).tocsr()
    weights = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / max(people, 1)), size=draws)
    found = {}
    for name in places:
        queries, items = pairs.items_of_people(name)
        all_drawn = (weights @ queries) * (weights @ items) - np.square(weights) @ (queries * items)
        matched_drawn = np.einsum("rp,rp->r", weights, (matched[name].T @ weights.T).T)
        every, wrong = genuine[name]
        impostors, reached = queries.sum() * items.sum() - queries @ items, matched[name].sum()
        pairs_of_people = int((queries > 0).sum() * (items > 0).sum() - ((queries > 0) & (items > 0)).sum())
        found[name] = {
            "false_match_rate": _interval(all_drawn, matched_drawn, impostors, reached, pairs_of_people),
            "false_non_match_rate": _interval(
                weights @ every, weights @ wrong, every.sum(), wrong.sum(), int((every > 0).sum())
            ),
        }
    return found


def _interval(
    all_drawn: np.ndarray, wrong_drawn: np.ndarray, total: float, wrong: float, trials: int
) -> tuple[float, float]:
    """The interval from the numbers of all pairs and of wrong pairs, per draw [R] and in the data."""
    if not total or wrong in (0, total):
        return wilson(trials if total and wrong else 0, trials)
    possible = all_drawn > 0
    low, high = np.quantile(wrong_drawn[possible] / all_drawn[possible], (0.025, 0.975))
    return float(low), float(high)


def wilson(events: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    share = events / trials
    centre = share + Z**2 / (2 * trials)
    spread = Z * np.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    scale = 1 + Z**2 / trials
    return float(max(0.0, (centre - spread) / scale)), float(min(1.0, (centre + spread) / scale))
