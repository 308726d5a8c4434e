"""CMC, average precision and inverse negative penalty of ranking lists that may hold ties.

We describe a ranking list by its *groups*: matches with tied distances, and the distractors tied with them. A match
without a tie is a group of one. In a group every order is equally likely, and each metric is its expected value over
these orders: it does not depend on the order of the gallery, and lies between the values of the worst and the best
order. Without ties the values are the usual ones: AP is the mean of the precision at each match, INP is (number of
matches) / (rank of the last match).

Shape letters: K groups of all queries, V queries that have a match, R ranks. Ranks count from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Groups:
    """Groups of tied items that hold a match, sorted by query and then by distance. All arrays are int64 [K].

    Args:
        query: the group's query, any number; the groups of a query are neighbours.
        ahead: kept gallery items strictly closer than the group, matches and distractors.
        found: matches among `ahead`.
        matches: matches in the group, at least 1.
        size: matches and distractors in the group.
    """

    query: np.ndarray
    ahead: np.ndarray
    found: np.ndarray
    matches: np.ndarray
    size: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """Index of each query's closest group, [V]."""
        return np.flatnonzero(np.r_[True, self.query[1:] != self.query[:-1]]) if len(self.query) else np.zeros(0, int)

    @property
    def last(self) -> np.ndarray:
        """Index of each query's farthest group, [V]."""
        return np.r_[self.first[1:], len(self.query)] - 1 if len(self.query) else np.zeros(0, int)


def average_precision(groups: Groups) -> np.ndarray:
    """Expected AP of each query, float64 [V] in (0, 1].

    A group of n items and m matches behind a items of which r are matches adds, over all orders,
    sum_{i=1..n} m/n * (r + 1 + (i - 1)(m - 1)/(n - 1)) / (a + i), since the i-th item is a match with probability m/n
    and has then (i - 1)(m - 1)/(n - 1) matches of the group before it on average.
    """
    if not len(groups.query):
        return np.zeros(0)
    ahead, found, matches, size = (
        array.astype(np.float64) for array in (groups.ahead, groups.found, groups.matches, groups.size)
    )
    added = (found + 1) / (ahead + 1)
    tied = np.flatnonzero(groups.size > 1)
    if len(tied):
        # sum 1/(a+i) and sum (i-1)/(a+i) by harmonic numbers, which is as fast for a group of the whole gallery
        ends = groups.ahead + groups.size
        harmonic = np.r_[0.0, np.cumsum(1.0 / np.arange(1, ends[tied].max() + 1))]
        a, r, m, n = ahead[tied], found[tied], matches[tied], size[tied]
        inverse = harmonic[ends[tied]] - harmonic[groups.ahead[tied]]
        added[tied] = m / n * ((r + 1) * inverse + (m - 1) / (n - 1) * (n - (a + 1) * inverse))
    return np.add.reduceat(added, groups.first) / np.add.reduceat(matches, groups.first)


def inverse_negative_penalty(groups: Groups) -> np.ndarray:
    """Expected INP of each query, float64 [V] in (0, 1]: number of matches / rank of the last match."""
    last = groups.last
    total = groups.found[last] + groups.matches[last]
    value = total / np.maximum(groups.ahead[last] + groups.size[last], 1)
    for index in np.flatnonzero(groups.size[last] > groups.matches[last]):
        a, n, m = (int(array[last[index]]) for array in (groups.ahead, groups.size, groups.matches))
        # the last match is at place l of the group with probability C(l-1, m-1) / C(n, m): m/n at l = n, then downwards
        place = np.arange(n, m - 1, -1, dtype=np.float64)
        probability = m / n * np.cumprod(np.r_[1.0, (place[:-1] - m) / (place[:-1] - 1)])
        value[index] = total[index] * np.sum(probability / (a + place))
    return value


def cumulative_match(groups: Groups, max_rank: int) -> np.ndarray:
    """CMC of each query, float64 [V, R]: the probability that a match stands among the first 1, 2, ..., R items."""
    first = groups.first
    ahead, size, matches = groups.ahead[first], groups.size[first], groups.matches[first]
    none_yet = np.ones(len(first))
    cmc = np.empty((len(first), max_rank))
    for rank in range(1, max_rank + 1):
        drawn = rank - 1 - ahead
        distractor = np.maximum(size - matches - drawn, 0) / np.maximum(size - drawn, 1)
        none_yet = np.where(drawn >= 0, none_yet * distractor, none_yet)
        cmc[:, rank - 1] = 1.0 - none_yet
    return cmc


def first_match_rank(groups: Groups) -> np.ndarray:
    """Expected rank of the first match of each query, float64 [V], 1 or more."""
    first = groups.first
    return groups.ahead[first] + (groups.size[first] + 1) / (groups.matches[first] + 1)
