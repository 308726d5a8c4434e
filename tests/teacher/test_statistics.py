from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher.statistics import label_statistics, plot_statistics, whole_persons


def test_against_counting_pairs():
    rng = np.random.default_rng(0)
    choices, pids = rng.integers(0, 2, (24, 16)), rng.integers(0, 6, 24)
    found = label_statistics(choices, pids)
    for m in range(16):
        within, between = {}, []
        for i, j in itertools.combinations(range(24), 2):
            same = choices[i, m] == choices[j, m]
            if pids[i] == pids[j]:
                within.setdefault(pids[i], []).append(same)
            else:
                between.append(same)
        agreement, chance = np.mean([np.mean(values) for values in within.values()]), np.mean(between)
        assert found.agreement[m] == pytest.approx(agreement) and found.chance[m] == pytest.approx(chance)
        assert found.kappa[m] == pytest.approx((agreement - chance) / (1 - chance))
        assert found.phrase_1_share[m] == pytest.approx(np.mean(choices[:, m] == 0))


def test_labels_of_the_body_and_labels_of_nothing():
    rng = np.random.default_rng(1)
    pids = np.repeat(np.arange(100), 4)
    choices = rng.integers(0, 2, (400, 16))
    choices[:, 0] = (np.arange(100) % 2)[pids]
    found = label_statistics(choices, pids)
    assert found.agreement[0] == 1.0 and found.kappa[0] == pytest.approx(1.0)
    assert np.abs(found.kappa[1:]).max() < 0.15
    assert "400 images of 100 persons" in found.table()


def test_labels_that_never_vary_and_persons_seen_once():
    found = label_statistics(np.zeros((5, 16), int), np.arange(5))
    assert np.isnan(found.agreement).all() and np.isnan(found.kappa).all()
    assert found.as_dict()["kappa"] == [None] * 16 and found.as_dict()["chance"] == [1.0] * 16


def test_wrong_shapes():
    with pytest.raises(ClearError, match="label statistics"):
        label_statistics(np.zeros((5, 15), int), np.arange(5))
    with pytest.raises(ClearError, match="label statistics"):
        label_statistics(np.zeros((0, 16), int), np.arange(0))


def test_whole_persons():
    pids = [3, 1, 3, 2, 1, 1]
    assert whole_persons(pids, 0) == [0, 1, 2, 3, 4, 5]
    assert whole_persons(pids, 5) == [0, 1, 2, 4, 5]
    assert whole_persons(pids, 1) == [0, 2]


def test_the_plot(tmp_path):
    statistics = label_statistics(np.random.default_rng(0).integers(0, 2, (40, 16)), np.arange(40) // 4)
    assert plot_statistics(statistics, tmp_path / "new" / "labels.png").stat().st_size > 10_000
