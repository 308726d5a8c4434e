"""The interval of a gain over other test people."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from fastreid_clip3d.evaluation.features_file import write_features
from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from tools.study.people import features_file, interval, interval_lines


def test_interval_of_scipy() -> None:
    """One value per person: scipy's bootstrap of a mean."""
    values = np.random.default_rng(3).standard_normal(80)
    mean, low, high = interval(values, np.arange(80), resamples=20000)
    other = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", random_state=np.random.default_rng(1)
    )
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(tuple(other.confidence_interval), abs=0.01)


def test_people_are_drawn_whole() -> None:
    """Four queries of each person agree: 20 people are as sure as 20 values, not as 80."""
    values, people = np.random.default_rng(5).standard_normal(20), np.arange(20)
    alone = interval(values, people, resamples=4000)
    repeated = interval(values.repeat(4), people.repeat(4), resamples=4000)
    assert repeated == pytest.approx(alone)


def run(folder: Path, variant: str, seed: int, by_body: float) -> SimpleNamespace:
    """A finished run whose features hold the outfit (1) and the body (`by_body`) of 5 people in 2 outfits."""
    features = torch.zeros(10, 15)
    person, outfit = np.arange(10) // 2, np.arange(10)
    features[range(10), outfit] = 1.0
    features[range(10), 10 + person] = by_body
    sides = [LabelledFeatures(features, person, np.full(10, camera), outfit) for camera in (0, 1)]
    place = folder / variant / f"seed{seed}"
    features_file(place, "Test").parent.mkdir(parents=True)
    write_features(features_file(place, "Test"), *sides)
    return SimpleNamespace(
        variant=SimpleNamespace(name=variant, title=variant.title()),
        seed=seed,
        folder=place,
        tests=("Test",),
        is_done=lambda: True,
    )


def test_lines_pair_rows_by_seed(tmp_path: Path) -> None:
    """With the body, the match is first: AP 1. Without it, it is anywhere among the 8 pictures of others and itself."""
    runs = [run(tmp_path, "without_all", 0, 0.0), run(tmp_path, "full", 0, 0.5), run(tmp_path, "full", 1, 0.0)]
    chance = np.mean(1 / np.arange(1, 10))
    gain = f"{100 * (1 - chance):+.2f}"
    assert interval_lines(runs) == [
        f"Full, tested on Test, 1 seeds: {gain}, 95% interval {gain} to {gain} over 5 people"
    ]


def test_no_line_without_features(tmp_path: Path) -> None:
    runs = [run(tmp_path, "without_all", 0, 0.0), run(tmp_path, "full", 0, 0.5)]
    features_file(runs[1].folder, "Test").unlink()
    assert interval_lines(runs) == []
