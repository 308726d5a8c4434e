"""Scores protocols on features or distances, a block of queries at a time.

We build no ranking list: the metrics only need the number of kept gallery items that are closer than each match. We
sort a block of distances by value, look up the places of the matches in it, and subtract the removed items, which all
show the query's person. All protocols that use the same gallery share one pass over the distances.

Shape letters: Q queries, G gallery items, D feature dimensions, V counted queries, R ranks, P pairs of a query and a
gallery item that show the same person, K groups of tied items (see metrics).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.distances import (
    FeatureDistances,
    MatrixDistances,
    Metric,
    RowSource,
    compute_device,
    first_non_finite_row,
    largest_value,
    sort_rows,
)
from fastreid_clip3d.evaluation.metrics import (
    Groups,
    average_precision,
    cumulative_match,
    first_match_rank,
    inverse_negative_penalty,
)
from fastreid_clip3d.evaluation.protocols import Protocol, Rule, is_member, removes, shared_codes

DEFAULT_MAX_MEMORY = 1024.0
_MIB = 1 << 20
_MAX_BLOCK_QUERIES = 512  # more make no block faster
_PAIR_BYTES = 160  # the arrays that a block keeps for each pair, at their peak


@dataclass
class LabelledFeatures:
    """The features of query or gallery with their ids.

    Args:
        features: [N, D], float16, float32 or float64, finite.
        pids, camids: [N], any integer type. Query and gallery share one id space.
        clothes_ids: [N], or None where they are not known.
        names: the items' paths, N or none. Single-shot draws order a person's items by them.
    """

    features: torch.Tensor
    pids: np.ndarray
    camids: np.ndarray
    clothes_ids: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pids)


@dataclass
class ProtocolResult:
    """The scores of a protocol. Fractions, not percent; arrays are per counted query, in the order of the queries.

    Args:
        num_queries: queries of the protocol's cameras and people.
        queries: int64 [V], the queries that have a match; the others are not counted.
        average_precisions, inverse_negative_penalties: float64 [V].
        cmc: float64 [V, R]; `first_match_ranks`: float64 [V], from 1; with ties the expected value.
        match_counts: float64 [V], kept matches.
        top_matches: int64 [V, T], the closest kept gallery items, -1 where fewer are kept; T = 0 for single-shot
            protocols.
    """

    protocol: Protocol
    num_queries: int
    queries: np.ndarray
    average_precisions: np.ndarray
    inverse_negative_penalties: np.ndarray
    cmc: np.ndarray
    first_match_ranks: np.ndarray
    match_counts: np.ndarray
    top_matches: np.ndarray

    @property
    def valid_queries(self) -> int:
        """Number of queries with a match."""
        return len(self.queries)

    @property
    def queries_without_match(self) -> int:
        """Number of queries without a match."""
        return self.num_queries - len(self.queries)

    def _mean(self, values: np.ndarray) -> float | None:
        # fsum rounds once, so that the order of the queries changes no bit
        return math.fsum(values) / len(values) if len(values) else None

    @property
    def mean_average_precision(self) -> float | None:
        """mAP; None without a match anywhere."""
        return self._mean(self.average_precisions)

    @property
    def mean_inverse_negative_penalty(self) -> float | None:
        """mINP; None without a match anywhere."""
        return self._mean(self.inverse_negative_penalties)

    def rank(self, rank: int) -> float | None:
        """Rank-1, Rank-5, ...; None without a match anywhere."""
        return self._mean(self.cmc[:, rank - 1])

    def percentages(self) -> dict[str, float | int | None]:
        """mAP, Rank-1, Rank-5, Rank-10, mINP in percent (None without a match anywhere) and valid_queries."""
        values = {"mAP": self.mean_average_precision, **{f"Rank-{rank}": self.rank(rank) for rank in (1, 5, 10)}}
        values["mINP"] = self.mean_inverse_negative_penalty
        percent = {name: None if value is None else value * 100 for name, value in values.items()}
        return {**percent, "valid_queries": self.valid_queries}


@dataclass
class _Blocks:
    """The results of one protocol for the blocks of queries of one pass."""

    queries: list[np.ndarray] = field(default_factory=list)
    per_query: list[tuple[np.ndarray, ...]] = field(default_factory=list)


@dataclass(frozen=True)
class _Task:
    """A protocol in one pass: its number among the protocols, and which queries it asks, bool [Q]."""

    number: int
    protocol: Protocol
    asked: np.ndarray


class Ids:
    """The ids of query and gallery as codes that compare exactly.

    Raises:
        ClearError: one of the protocols needs clothes ids, and there are none; ids that are no integers, or not one
            per item.
    """

    def __init__(self, query: LabelledFeatures, gallery: LabelledFeatures, protocols: Iterable[Protocol]) -> None:
        _check_ids(query, "query")
        _check_ids(gallery, "gallery")
        self.query_pids, self.gallery_pids = shared_codes(query.pids, gallery.pids)
        self._camids = shared_codes(query.camids, gallery.camids)
        self._clothes: tuple[np.ndarray, np.ndarray] | None = None
        if query.clothes_ids is not None and gallery.clothes_ids is not None:
            self._clothes = shared_codes(query.clothes_ids, gallery.clothes_ids)
        for protocol in protocols:
            if protocol.needs_clothes and self._clothes is None:
                raise ClearError(f"protocol {protocol.name} needs clothes ids of query and gallery, and there are none")

    def removed(self, rule: Rule, queries: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Which pairs a rule removes if they show one person: bool, in the broadcast shape of the two index arrays."""
        same_camera = self._camids[0][queries] == self._camids[1][items]
        same_clothes = None if self._clothes is None else self._clothes[0][queries] == self._clothes[1][items]
        return removes(rule, same_camera, same_clothes)


def _check_ids(side: LabelledFeatures, name: str) -> None:
    for key in ("pids", "camids", "clothes_ids"):
        ids = getattr(side, key)
        if ids is None:
            continue
        if len(ids) and ids.dtype.kind not in "iu":
            raise ClearError(f"{key} of the {name} are {ids.dtype}, expected integers. Number the different ids.")
        if ids.shape != (len(side.features),):
            raise ClearError(f"{key} of the {name} have shape {ids.shape}, expected ({len(side.features)},).")


def taking_part(
    protocol: Protocol, query: LabelledFeatures, gallery: LabelledFeatures
) -> tuple[np.ndarray, np.ndarray]:
    """The queries and the gallery items of the protocol's cameras and people, bool [Q] and [G]."""
    return (
        is_member(query.camids, protocol.query_cameras) & is_member(query.pids, protocol.pids),
        is_member(gallery.camids, protocol.gallery_cameras) & is_member(gallery.pids, protocol.pids),
    )


def check_max_memory(max_memory: float) -> None:
    """Refuses a ``--max-memory`` that is no number of MiB above 0."""
    if not 0 < max_memory < math.inf:
        raise ClearError(f"--max-memory is {max_memory:g}; it must be a number of MiB above 0.")


def check_features(query: LabelledFeatures, gallery: LabelledFeatures) -> None:
    """Refuses features that are not finite, and features of query and gallery that differ in width."""
    for name, side in (("query", query), ("gallery", gallery)):
        if not np.isfinite(largest_value(side.features)):
            row = first_non_finite_row(side.features)
            raise ClearError(
                f"The features of {name} item {row} are not finite. Compute them again, or leave the item out."
            )
    widths = query.features.shape[1], gallery.features.shape[1]
    if widths[0] != widths[1]:
        raise ClearError(f"query features have {widths[0]} columns, gallery features {widths[1]}")


def evaluate(
    query: LabelledFeatures,
    gallery: LabelledFeatures,
    protocols: Iterable[Protocol],
    metric: Metric = "cosine",
    *,
    distances: np.ndarray | RowSource | None = None,
    max_memory: float = DEFAULT_MAX_MEMORY,
    block_queries: int = 0,
    device: str = "cpu",
    max_rank: int = 50,
    top_matches: int = 0,
    progress: Callable[[Iterable, int], Iterable] | None = None,
) -> dict[str, ProtocolResult]:
    """Scores every protocol; the result by the protocol's name, in their order.

    Args:
        metric: not used with `distances`.
        distances: distances [Q, G] or a source of their rows (after re-ranking), ranked instead of the features.
        max_memory: MiB for the distances and their by-products, beyond the features.
        block_queries: queries of a block; 0: as many as fit in `max_memory`. Does not change the result.
        device: where distances are computed and sorted.
        top_matches: number of the closest kept gallery items in the result of each query, at most that of the gallery.
        progress: takes the blocks of a pass and their number, and yields the blocks.

    Raises:
        ClearError: a protocol needs clothes ids and there are none; shapes do not fit; an unknown metric; features or
            distances that are not finite.

    One query of person 7 and three gallery pictures, the nearest first: person 7 in the same clothes, person 8, person
    7 in other clothes. In ``general`` the matches are first and third: AP = (1/1 + 2/3) / 2. ``CC`` removes the first
    picture, so the only match is second.

    >>> from fastreid_clip3d.evaluation import CC, GENERAL
    >>> query = LabelledFeatures(torch.tensor([[1.0, 0.0]]), np.array([7]), np.array([1]), np.array([1]))
    >>> features = torch.tensor([[1.0, 0.1], [1.0, 0.5], [1.0, 0.9]])
    >>> gallery = LabelledFeatures(features, np.array([7, 8, 7]), np.array([2, 2, 3]), np.array([1, 3, 2]))
    >>> results = evaluate(query, gallery, [GENERAL, CC])
    >>> [(name, round(result.mean_average_precision, 3), result.rank(1)) for name, result in results.items()]
    [('general', 0.833, 1.0), ('CC', 0.5, 0.0)]
    """
    protocols, top_matches = list(protocols), min(top_matches, len(gallery))
    ids = Ids(query, gallery, protocols)
    if distances is None:
        check_features(query, gallery)
    elif distances.shape != (len(query), len(gallery)):
        raise ClearError(f"distances have shape {distances.shape}, expected {(len(query), len(gallery))}")

    draws: list[list[ProtocolResult]] = [[] for _ in protocols]
    for columns, tasks in _passes(query, gallery, ids, protocols):
        source = _source(query, gallery, columns, metric, distances, device, max_memory)
        results = _one_pass(source, ids, columns, tasks, max_memory, block_queries, max_rank, top_matches, progress)
        for task, result in zip(tasks, results):
            draws[task.number].append(result)
    return {protocol.name: _mean_of_draws(results) for protocol, results in zip(protocols, draws)}


def _source(
    query: LabelledFeatures,
    gallery: LabelledFeatures,
    columns: np.ndarray,
    metric: Metric,
    distances: np.ndarray | RowSource | None,
    device: str,
    max_memory: float,
) -> FeatureDistances | MatrixDistances:
    """The distances of all queries to the gallery items `columns`, int64 [g]."""
    if distances is not None:
        return MatrixDistances(distances, columns)
    features = gallery.features if len(columns) == len(gallery) else gallery.features[torch.from_numpy(columns)]
    return FeatureDistances(query.features, features, metric, compute_device(device), max_memory)


def _passes(
    query: LabelledFeatures, gallery: LabelledFeatures, ids: Ids, protocols: list[Protocol]
) -> Iterator[tuple[np.ndarray, list[_Task]]]:
    """The galleries (as indices, int64 [g]) of all passes, each with the protocols that use it."""
    shared: dict[bytes, tuple[np.ndarray, list[_Task]]] = {}
    for number, protocol in enumerate(protocols):
        asked, shown = taking_part(protocol, query, gallery)
        columns, task = np.flatnonzero(shown), _Task(number, protocol, asked)
        if not protocol.single_shot_draws:
            shared.setdefault(shown.tobytes(), (columns, []))[1].append(task)
            continue
        columns = _canonical_order(gallery, ids, columns)
        for draw in range(protocol.single_shot_draws):
            yield single_shot_draw(ids.gallery_pids[columns], columns, protocol.seed, draw), [task]
    yield from shared.values()


def _canonical_order(gallery: LabelledFeatures, ids: Ids, columns: np.ndarray) -> np.ndarray:
    """`columns` ordered by person and then by name, or by the features' bytes where there are no names."""
    if gallery.names:
        keys = [gallery.names[column] for column in columns]
    else:
        keys = [hashlib.sha1(gallery.features[int(c)].numpy().tobytes()).hexdigest() for c in columns]
    return columns[np.lexsort((np.array(keys, dtype=object).astype(str), ids.gallery_pids[columns]))]


def single_shot_draw(pids: np.ndarray, columns: np.ndarray, seed: int, draw: int) -> np.ndarray:
    """One random item of each person.

    Args:
        pids: int64 [g], ascending. columns: [g], the items. Their order must not depend on the order of the gallery's
            files, so that the draw does not either.

    Returns:
        One entry of `columns` per person, ascending.
    """
    if not len(pids):
        return columns
    starts = np.flatnonzero(np.r_[True, pids[1:] != pids[:-1]])
    counts = np.diff(np.r_[starts, len(pids)])
    return np.sort(columns[starts + np.random.default_rng([seed, draw]).integers(counts)])


def _one_pass(
    source: FeatureDistances | MatrixDistances,
    ids: Ids,
    columns: np.ndarray,
    tasks: list[_Task],
    max_memory: float,
    block_queries: int,
    max_rank: int,
    top_matches: int,
    progress: Callable[[Iterable, int], Iterable] | None,
) -> list[ProtocolResult]:
    """Scores the protocols that use the gallery `columns`."""
    gallery_pids = ids.gallery_pids[columns]
    by_person = np.argsort(gallery_pids, kind="stable")
    starts = np.searchsorted(gallery_pids[by_person], ids.query_pids, "left")
    counts = np.searchsorted(gallery_pids[by_person], ids.query_pids, "right") - starts
    asked = np.logical_or.reduce([task.asked for task in tasks])
    queries = np.flatnonzero(asked & (counts > 0))

    if not block_queries:
        bytes_per_query = source.row_bytes + _PAIR_BYTES * int(counts.max(initial=0))
        block_queries = int(max(1, (max_memory * _MIB - source.fixed_bytes) // max(bytes_per_query, 1)))
        if not source.prefers_large_blocks:
            block_queries = min(block_queries, _MAX_BLOCK_QUERIES)
    blocks = [queries[start : start + block_queries] for start in range(0, len(queries), block_queries)]
    collected = [_Blocks() for _ in tasks]
    for block in progress(blocks, len(blocks)) if progress else blocks:
        distances = source.rows(block)
        number, lengths = np.repeat(np.arange(len(block)), counts[block]), counts[block]
        places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        items = by_person[np.repeat(starts[block], lengths) + places]
        values = distances[torch.from_numpy(number), torch.from_numpy(items)].cpu().numpy()
        order = np.lexsort((items, values, number))
        items, values = items[order], values[order]  # `number` is sorted already
        pairs = _Pairs(block, number, items, values, np.r_[0, np.cumsum(lengths)])
        kept = [
            ~ids.removed(task.protocol.rule, block[number], columns[items]) & task.asked[block[number]]
            for task in tasks
        ]
        tops = [
            _top_matches(distances, pairs, mask, top_matches)
            if top_matches and not task.protocol.single_shot_draws
            else None
            for task, mask in zip(tasks, kept)
        ]
        rows = sort_rows(distances)
        for mask, top, into in zip(kept, tops, collected):
            groups = _tied_groups(source, rows, pairs, mask)
            found, last = groups.query[groups.first], groups.last
            closest = np.full((len(found), 0), -1) if top is None else np.where(top >= 0, columns[top], -1)
            into.queries.append(block[found])
            matches = (groups.found[last] + groups.matches[last]).astype(np.float64)
            scores = average_precision(groups), inverse_negative_penalty(groups), cumulative_match(groups, max_rank)
            into.per_query.append((*scores, first_match_rank(groups), matches, closest))
    return [_joined(task, into, max_rank, top_matches) for task, into in zip(tasks, collected)]


def _joined(task: _Task, blocks: _Blocks, max_rank: int, top_matches: int) -> ProtocolResult:
    top = 0 if task.protocol.single_shot_draws else top_matches
    nothing = (np.zeros(0), np.zeros(0), np.zeros((0, max_rank)), np.zeros(0), np.zeros(0), np.zeros((0, top), int))
    queries = np.concatenate([np.zeros(0, dtype=np.int64), *blocks.queries])
    per_query = [np.concatenate(arrays) for arrays in zip(*blocks.per_query)] or nothing
    return ProtocolResult(task.protocol, int(task.asked.sum()), queries, *per_query)


@dataclass(frozen=True)
class _Pairs:
    """Pairs that show the same person, sorted by query of the block and by distance.

    Args:
        block: the block's queries [B]. number: [P], the query's place in the block. items: [P], gallery column.
        values: [P], distance. offsets: [B + 1], the first pair of each query.
    """

    block: np.ndarray
    number: np.ndarray
    items: np.ndarray
    values: np.ndarray
    offsets: np.ndarray


def _tied_groups(
    source: FeatureDistances | MatrixDistances, rows: np.ndarray, pairs: _Pairs, kept: np.ndarray
) -> Groups:
    """The kept pairs (mask [P]), all of them matches, as groups of ties; `rows` are the sorted distances [B, G]."""
    number, values = pairs.number[kept], pairs.values[kept]
    tolerance = source.tolerance(pairs.block[number], values)
    low, high = values - tolerance, values + tolerance
    # a match is tied with the match before it if their ranges overlap, and with each distractor in the joint range
    begins = np.ones(len(number), dtype=bool)
    begins[1:] = (number[1:] != number[:-1]) | (low[1:] > high[:-1])
    first = np.flatnonzero(begins)
    last = np.r_[first[1:], len(number)] - 1 if len(first) else first
    query, low, high = number[first], low[first], high[last]

    closer, up_to = np.empty(len(first), dtype=np.int64), np.empty(len(first), dtype=np.int64)
    bounds = np.searchsorted(query, np.arange(len(pairs.block) + 1))
    for index in np.flatnonzero(bounds[1:] > bounds[:-1]):
        part = slice(bounds[index], bounds[index + 1])
        row, own = rows[index], pairs.values[pairs.offsets[index] : pairs.offsets[index + 1]]
        closer[part] = row.searchsorted(low[part], "left") - own.searchsorted(low[part], "left")
        up_to[part] = row.searchsorted(high[part], "right") - own.searchsorted(high[part], "right")

    matches = last - first + 1
    found = np.cumsum(matches) - matches
    found -= found[bounds[query]] if len(query) else 0
    return Groups(query, closer + found, found, matches, up_to - closer + matches)


def _top_matches(distances: torch.Tensor, pairs: _Pairs, kept: np.ndarray, count: int) -> np.ndarray:
    """The closest kept gallery columns of each query that has a match, int64 [V, count], -1 where there are fewer.

    Equal distances stand in the order of the gallery.
    """
    found = np.unique(pairs.number[kept])
    top = np.full((len(found), count), -1, dtype=np.int64)
    for line, index in enumerate(found):
        row = distances[index].cpu().numpy().copy()
        own = slice(pairs.offsets[index], pairs.offsets[index + 1])
        row[pairs.items[own][~kept[own]]] = np.inf
        limit = np.partition(row, count - 1)[count - 1] if count < len(row) else np.inf
        candidates = np.flatnonzero(row <= limit)
        candidates = candidates[np.argsort(row[candidates], kind="stable")][:count]
        candidates = candidates[np.isfinite(row[candidates])]
        top[line, : len(candidates)] = candidates
    return top


def _mean_of_draws(results: list[ProtocolResult]) -> ProtocolResult:
    """Draws as one result: each query's values averaged over the draws in which it had a match."""
    if len(results) == 1:
        return results[0]
    queries = np.unique(np.concatenate([result.queries for result in results]))
    times = np.zeros(len(queries))
    for result in results:
        times[np.searchsorted(queries, result.queries)] += 1

    def mean(values: list[np.ndarray]) -> np.ndarray:
        total = np.zeros((len(queries), *values[0].shape[1:]))
        for result, value in zip(results, values):
            total[np.searchsorted(queries, result.queries)] += value
        return total / times.reshape(-1, *[1] * (total.ndim - 1))

    names = ("average_precisions", "inverse_negative_penalties", "cmc", "first_match_ranks", "match_counts")
    means: dict[str, Any] = {name: mean([getattr(result, name) for result in results]) for name in names}
    return replace(results[0], queries=queries, top_matches=np.zeros((len(queries), 0), dtype=np.int64), **means)


def pair_distances(
    query: LabelledFeatures,
    gallery: LabelledFeatures,
    protocol: Protocol,
    metric: Metric = "cosine",
    *,
    distances: np.ndarray | RowSource | None = None,
    block_queries: int = 256,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of all kept pairs, float32: those of the same person, and those of different people.

    For ROC curves, as fast-reid's: over all queries, with or without a match. Memory: 4 bytes per pair.
    """
    ids = Ids(query, gallery, [protocol])
    queries, columns = map(np.flatnonzero, taking_part(protocol, query, gallery))
    source = _source(query, gallery, columns, metric, distances, device, DEFAULT_MAX_MEMORY)
    gallery_pids = ids.gallery_pids[columns]
    items_of = np.bincount(gallery_pids, minlength=int(ids.query_pids.max(initial=0)) + 1)
    same = [np.zeros(0, np.float32)]
    different = np.empty(len(queries) * len(columns) - int(items_of[ids.query_pids[queries]].sum()), np.float32)
    filled = 0
    for start in range(0, len(queries), block_queries):
        block = queries[start : start + block_queries]
        values = source.true_distances(block, source.rows(block).cpu().numpy()).astype(np.float32)
        same_person = ids.query_pids[block][:, None] == gallery_pids[None]
        same.append(values[same_person & ~ids.removed(protocol.rule, block[:, None], columns[None])])
        others = values[~same_person]
        different[filled : filled + len(others)] = others
        filled += len(others)
    return np.concatenate(same), different
