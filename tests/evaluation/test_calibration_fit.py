"""A calibration of one kind of pictures is not believed on another kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreid_clip3d.evaluation.calibration import Calibration, calibrate
from fastreid_clip3d.evaluation.calibration_fit import FEWEST_PICTURES, calibration_fit
from fastreid_clip3d.evaluation.protocols import GENERAL
from fastreid_clip3d.evaluation.ranking import LabelledFeatures

DIMS = 32


def people(rng: np.random.Generator, count: int, pictures: int, common: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Features of `count` people and their ids; `common` pulls all of them into one direction."""
    centres = rng.standard_normal((count, DIMS)).repeat(pictures, 0)
    vectors = centres + 0.5 * rng.standard_normal((count * pictures, DIMS)) + common * np.sqrt(DIMS) * np.eye(DIMS)[0]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.arange(count).repeat(pictures)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    rng = np.random.default_rng(0)
    sides = []
    for camera in (0, 1):
        features, pids = people(rng, 60, 3)
        sides.append(LabelledFeatures(torch.from_numpy(features), pids, np.full(len(pids), camera)))
    return calibrate(*sides, [GENERAL], "f" * 32, "RenderedPeople")


@pytest.mark.parametrize(("count", "pictures"), [(300, 1), (60, 5), (12, 4), (2000, 1)])
def test_pictures_of_the_same_kind_are_believed(calibration: Calibration, count: int, pictures: int) -> None:
    for seed in range(1, 6):
        features, _ = people(np.random.default_rng(seed), count, pictures)
        fit = calibration_fit(features, calibration)
        assert fit.holds is True and fit.sentence == "", fit


@pytest.mark.parametrize("common", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("count", [40, 300])
def test_pictures_that_are_all_alike_are_not(calibration: Calibration, count: int, common: float) -> None:
    features, _ = people(np.random.default_rng(1), count, 1, common)
    fit = calibration_fit(features, calibration)
    different = (features @ features.T)[np.triu_indices(count, 1)]
    passed = (different >= calibration.protocols["general"].recommended.threshold).mean()
    assert fit.holds is False and fit.gap > 0.4, (fit, passed)
    assert "does not hold for this gallery" in fit.sentence and "RenderedPeople" in fit.sentence


def test_the_gap_is_that_of_the_two_distributions(calibration: Calibration) -> None:
    """Every picture the same: all pairs have similarity 1, which no pair of different people reached."""
    features = np.tile(np.eye(DIMS)[0], (50, 1))
    assert calibration_fit(features, calibration).gap == pytest.approx(1.0, abs=0.01)


def test_few_pictures_prove_nothing(calibration: Calibration) -> None:
    features, _ = people(np.random.default_rng(1), FEWEST_PICTURES - 1, 1)
    fit = calibration_fit(features, calibration)
    assert fit.holds is None and "29 pictures are too few" in fit.sentence
