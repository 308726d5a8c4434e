"""AP, INP and CMC of groups of ties, by hand and against all orders written out."""

from __future__ import annotations

import numpy as np
import pytest

from fastreid_clip3d.evaluation.metrics import (
    Groups,
    average_precision,
    cumulative_match,
    first_match_rank,
    inverse_negative_penalty,
)  # fmt: skip
from tests.references.evaluation import orders, score_list


def as_groups(distances: list[int], matches: list[bool]) -> Groups:
    """The groups of one ranking list, counted item by item."""
    rows = []
    for value in sorted({d for d, match in zip(distances, matches) if match}):
        ahead = [match for d, match in zip(distances, matches) if d < value]
        tied = [match for d, match in zip(distances, matches) if d == value]
        rows.append((0, len(ahead), sum(ahead), sum(tied), len(tied)))
    return Groups(*(np.array(column) for column in zip(*rows)))


def test_a_list_without_ties_by_hand() -> None:
    # match, other, other, match, other: precision 1/1 and 2/4
    groups = as_groups([1, 2, 3, 4, 5], [True, False, False, True, False])
    assert average_precision(groups) == pytest.approx([0.75])
    assert inverse_negative_penalty(groups) == pytest.approx([0.5])
    assert cumulative_match(groups, 3).tolist() == [[1.0, 1.0, 1.0]]
    # other, other, match: found at rank 3
    groups = as_groups([1, 2, 3], [False, False, True])
    assert average_precision(groups) == pytest.approx([1 / 3])
    assert cumulative_match(groups, 5).tolist() == [[0.0, 0.0, 1.0, 1.0, 1.0]]
    assert first_match_rank(groups) == pytest.approx([3.0])


def test_a_tie_by_hand() -> None:
    # a match tied with one distractor stands first or second: AP (1 + 1/2) / 2
    groups = as_groups([1, 1, 2], [True, False, False])
    assert average_precision(groups) == pytest.approx([0.75])
    assert inverse_negative_penalty(groups) == pytest.approx([0.75])
    assert cumulative_match(groups, 3)[0] == pytest.approx([0.5, 1.0, 1.0])
    assert first_match_rank(groups) == pytest.approx([1.5])


def test_ties_are_the_mean_over_all_orders() -> None:
    generator = np.random.default_rng(3)
    strictly_between = 0
    for _ in range(150):
        size = int(generator.integers(1, 11))
        distances = generator.integers(0, 4, size).tolist()
        matches = (generator.random(size) < 0.4).tolist()
        matches[int(generator.integers(size))] = True
        scores = [score_list(ranking, 12) for ranking in orders(distances, matches)]
        expected = [float(sum(values) / len(scores)) for values in list(zip(*scores))[:2]]
        groups = as_groups(distances, matches)
        found = average_precision(groups)[0], inverse_negative_penalty(groups)[0]
        assert found == pytest.approx(expected, abs=1e-12)
        cmc = np.mean([score[2] for score in scores], axis=0)
        np.testing.assert_allclose(cumulative_match(groups, 12)[0], cmc, atol=1e-12)
        lists = list(orders(distances, matches))
        assert first_match_rank(groups)[0] == pytest.approx(np.mean([ranking.index(True) + 1 for ranking in lists]))
        strictly_between += min(score[0] for score in scores) < found[0] < max(score[0] for score in scores)
    assert strictly_between > 50


def test_a_gallery_of_one_tie_costs_no_memory_and_stays_exact() -> None:
    # 100,000 equal distances, one match: the mean of 1/i
    groups = Groups(*(np.array([value]) for value in (0, 0, 0, 1, 100_000)))
    expected = float(np.sum(1 / np.arange(1, 100_001)) / 100_000)
    assert average_precision(groups)[0] == pytest.approx(expected, rel=1e-12)
    assert inverse_negative_penalty(groups)[0] == pytest.approx(expected, rel=1e-12)
    assert cumulative_match(groups, 10)[0] == pytest.approx(np.arange(1, 11) / 100_000)


def test_several_queries_are_kept_apart() -> None:
    # query 2: ranks 1 and 3; query 5: rank 2
    groups = Groups(*(np.array(column) for column in ([2, 2, 5], [0, 2, 1], [0, 1, 0], [1, 1, 1], [1, 1, 1])))
    assert average_precision(groups) == pytest.approx([(1 + 2 / 3) / 2, 0.5])
    assert inverse_negative_penalty(groups) == pytest.approx([2 / 3, 0.5])
    empty = Groups(*(np.zeros(0, dtype=int) for _ in range(5)))
    assert average_precision(empty).shape == inverse_negative_penalty(empty).shape == (0,)
    assert cumulative_match(empty, 4).shape == (0, 4)
