"""Open-set rates against searches of every possible gallery, and what a search says of its best match."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastreid_clip3d.evaluation.calibration import calibrate, read_calibration, write_calibration
from fastreid_clip3d.evaluation.error_rates import THRESHOLDS, PairSource
from fastreid_clip3d.evaluation.open_set import OpenSetRates, nobody_verdict, open_set_rates
from fastreid_clip3d.evaluation.protocols import CC, GENERAL
from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from tests.evaluation.test_calibration import labelled
from tests.references import open_set as reference


def items(generator: np.random.Generator, count: int, people: int) -> list[dict]:
    """Items whose similarities are apart by more than a step of the thresholds, persons in turn."""
    return [
        {
            "pid": number % people,
            "camid": int(generator.integers(0, 3)),
            "clothes": number % people * 10 + int(generator.integers(0, 2)),
            "feature": generator.standard_normal(3).tolist(),
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("seed", range(12))
def test_rates_are_means_over_all_galleries(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastreid_clip3d.evaluation.open_set.FACTOR", 3)
    generator = np.random.default_rng(seed)
    queries, gallery = items(generator, 7, 4), items(generator, 13, 4)
    protocol = (GENERAL, CC)[seed % 2]
    pairs = PairSource(labelled(queries), labelled(gallery), [protocol])
    found = open_set_rates(pairs, 0.2)[protocol.name]
    others = min(sum(item["pid"] != query["pid"] for item in gallery) for query in queries)
    assert [rates.gallery_size for rates in found] == [3, others]
    for rates in found:
        searches = reference.searches(protocol.rule, queries, gallery, rates.gallery_size)
        assert (rates.fpir, rates.fnir) == pytest.approx(reference.rates(*searches, rates.nobody_below), abs=1e-8)
        # a rate changes only just above a similarity, so these thresholds have all of its values
        seen = {value for search in (*searches[0], *searches[1]) for value in search[1:]}
        every = [-1.0, *(np.floor(value * 1e5) / 1e5 + step / 1e5 for value in seen for step in (0, 1))]
        rates_of = {threshold: reference.rates(*searches, threshold) for threshold in every if threshold <= 1}
        assert rates.fpir + rates.fnir == pytest.approx(min(map(sum, rates_of.values())), abs=1e-8)
        strict = min(threshold for threshold, own in rates_of.items() if own[0] <= 0.2)
        assert rates.strict_threshold == pytest.approx(strict, abs=1e-9)
        assert rates.strict_fnir == pytest.approx(rates_of[strict][1], abs=1e-8)
        assert rates.strict_threshold in THRESHOLDS


def two_people() -> tuple[LabelledFeatures, LabelledFeatures]:
    features, people = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), np.array([1, 2])
    return LabelledFeatures(features, people, np.array([1, 1])), LabelledFeatures(features, people, np.array([2, 2]))


def test_a_calibration_keeps_the_rates(tmp_path: Path) -> None:
    """The own picture has similarity 1, the other person's 0.6: halfway lies 0.8, without an error."""
    calibration = calibrate(*two_people(), [GENERAL], "print", "two people", 0.5)
    (rates,) = calibration.protocols["general"].open_set
    assert rates == OpenSetRates(1, pytest.approx(0.8, abs=1e-4), 0.0, 0.0, pytest.approx(0.60001), 0.0)
    write_calibration(tmp_path, calibration)
    assert read_calibration(tmp_path, "print") == calibration
    assert "| general    | 1         | 0.8" in calibration.open_set_table()
    nobody, sentence = calibration.nobody(0.7, 400)
    assert nobody is True and "nobody" in sentence and "two people" in sentence
    assert calibration.nobody(0.9, 1)[0] is False


def test_without_matches_there_are_no_rates() -> None:
    query, gallery = two_people()
    gallery.pids = np.array([3, 4])
    assert open_set_rates(PairSource(query, gallery, [GENERAL])) == {"general": ()}
    assert nobody_verdict(0.5, 10, (), "nothing") == (None, "")


def test_the_gallery_that_is_at_least_as_large_counts() -> None:
    rates = tuple(OpenSetRates(size, below, 0.1, 0.2, None, None) for size, below in ((10, 0.3), (100, 0.5)))
    assert [nobody_verdict(0.4, size, rates, "d")[0] for size in (5, 10, 11, 100, 5000)] == [
        False,
        False,
        True,
        True,
        True,
    ]
