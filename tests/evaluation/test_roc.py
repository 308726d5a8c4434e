"""TPR@FPR against scikit-learn's ROC curve, as fast-reid reads it, and in the memory of the distances."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn import metrics

from fastreid_clip3d.evaluation.roc import true_positive_rates


def of_scikit_learn(same: np.ndarray, different: np.ndarray, rates: list[float]) -> list[float]:
    labels = np.r_[np.zeros(len(same)), np.ones(len(different))]
    false_rates, true_rates, _ = metrics.roc_curve(labels, np.r_[same, different])
    return [float(true_rates[np.argmin(np.abs(false_rates - rate))]) for rate in rates]


@pytest.mark.parametrize("seed", range(300))
def test_rates_are_those_of_scikit_learns_curve(seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 40), generator.integers(1, 120)
    # half of the cases with ties; in a third the two kinds hardly overlap, so that long parts of the curve are straight
    spread, shift = (3, 30, 10**6)[seed % 3], (0, 0.5, 2)[seed // 3 % 3]
    same, different = (
        (generator.integers(0, spread, count) / spread + offset).astype(np.float32)
        for count, offset in zip(counts, (0, shift))
    )
    rates = [0.0, 1e-4, *generator.uniform(0, 1, 8), 1.0]
    expected = of_scikit_learn(same, different, rates)
    for rate, value in zip(rates, expected):
        assert next(iter(true_positive_rates(same, different, [rate]).values())) == pytest.approx(value, abs=1e-12)


def test_without_pairs_of_both_kinds_there_is_nothing() -> None:
    assert true_positive_rates(np.zeros(0), np.zeros(3)) == true_positive_rates(np.zeros(3), np.zeros(0)) == {}


def test_pairs_of_different_people_are_not_copied() -> None:
    generator = np.random.default_rng(0)
    same, different = generator.random(1000, dtype=np.float32), generator.random(2_000_000, dtype=np.float32)
    tracemalloc.start()
    true_positive_rates(same, different)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < different.nbytes / 10
