"""The sample of bodies gets a survey's distribution, and nothing else about it changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tools.assets.bodies import population
from tools.assets.bodies.survey import COLUMNS, Statistics

NO_TOLERANCE = np.zeros((1, 1))


def white(count: int, directions: int, seed: int = 0) -> np.ndarray:
    """Scores [count, directions] with mean 0 and covariance I to the last digit."""
    drawn = np.random.default_rng(seed).normal(size=(count, directions))
    drawn -= drawn.mean(0)
    return drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn.T))).T


def test_one_measurement_in_two_directions_by_hand():
    """m = 3 + 2 z1: a deviation of 6 and a mean of 7 stretch z1 by 3 and shift it by 2; z2 stays."""
    scores = white(50, 2)
    moved = population.project(
        scores, np.array([[2.0, 0.0]]), np.array([3.0]), np.array([7.0]), np.array([[36.0]]), NO_TOLERANCE
    )
    np.testing.assert_allclose(moved, scores * [3, 1] + [2, 0], atol=1e-10)


def test_tolerance_lets_a_mean_miss():
    """With m = 2 z1 and a tolerance R the shift is 2 / (4 + R) of the distance; R = 4 halves it."""
    scores = white(50, 2)
    moved = population.project(
        scores, np.array([[2.0, 0.0]]), np.zeros(1), np.array([4.0]), np.array([[4.0]]), np.array([[4.0]])
    )
    np.testing.assert_allclose(moved.mean(0), [1.0, 0.0], atol=1e-10)


@pytest.fixture
def surveyed():
    """Three measurements of seven directions, with a surveyed mean and covariance."""
    rng = np.random.default_rng(3)
    slopes, factor = rng.normal(size=(3, 7)), rng.normal(size=(3, 3))
    return slopes, rng.normal(size=3), rng.normal(size=3), factor @ factor.T + 0.1 * np.eye(3)


def test_measurements_get_the_surveyed_mean_and_covariance(surveyed):
    slopes, offset, mean, covariance = surveyed
    moved = population.project(white(400, 7), slopes, offset, mean, covariance, np.zeros((3, 3)))
    measured = offset + moved @ slopes.T
    np.testing.assert_allclose(measured.mean(0), mean, atol=1e-9)
    np.testing.assert_allclose(np.cov(measured.T), covariance, atol=1e-9)


def test_the_rest_keeps_its_distribution_given_the_measurements(surveyed):
    """Monte Carlo: draw m from the survey, then z given m as in the old sample (conditional Gaussian)."""
    slopes, offset, mean, covariance = surveyed
    moved = population.project(white(400, 7), slopes, offset, mean, covariance, np.zeros((3, 3)))
    rng = np.random.default_rng(9)
    drawn = rng.multivariate_normal(mean, covariance, 400_000)
    old = rng.normal(size=(400_000, 7))
    # A draw given m: correct an unconditional draw by what its own m misses (Matheron's rule).
    given = old + (drawn - offset - old @ slopes.T) @ np.linalg.pinv(slopes).T
    np.testing.assert_allclose(moved.mean(0), given.mean(0), atol=0.03)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(given.T), atol=0.02 * np.abs(np.cov(given.T)).max())
    null = np.linalg.svd(slopes)[2][3:]
    np.testing.assert_allclose(np.cov((moved @ null.T).T), np.eye(4), atol=1e-9, err_msg="unmeasured directions")


def test_the_map_does_not_depend_on_signs_of_directions(surveyed):
    slopes, offset, mean, covariance = surveyed
    scores, signs = white(60, 7), np.array([1, -1, -1, 1, -1, 1, 1])
    straight = population.project(scores, slopes, offset, mean, covariance, np.zeros((3, 3)))
    turned = population.project(scores * signs, slopes * signs, offset, mean, covariance, np.zeros((3, 3)))
    np.testing.assert_allclose(turned * signs, straight, atol=1e-9)


def test_nearest_correlation():
    valid = np.array([[1.0, 0.6, 0.2], [0.6, 1.0, -0.3], [0.2, -0.3, 1.0]])
    np.testing.assert_allclose(population.nearest_correlation(valid), valid, atol=1e-12)
    impossible = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])  # eigenvalues -0.8, 1.9, 1.9
    found = population.nearest_correlation(impossible)
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-12)
    assert np.linalg.eigvalsh(found).min() > 0 and np.allclose(found, found.T)
    # Without its negative eigenvalue the matrix is 1.9 (I - v v'), v = (1, -1, 1) / sqrt 3: correlations of +-1/2.
    np.testing.assert_allclose(found, [[1, 0.5, -0.5], [0.5, 1, 0.5], [-0.5, 0.5, 1]], atol=5e-3)


def test_components_are_the_textbooks():
    rng = np.random.default_rng(1)
    centred = rng.normal(size=(40, 12)) * np.linspace(3, 0.5, 12)
    centred -= centred.mean(0)
    scores, directions = population.principal_directions(centred, 9, 9)
    np.testing.assert_allclose(np.cov(scores.T), np.eye(9), atol=1e-9)
    np.testing.assert_allclose(scores @ directions[:, :9], centred[:, :9], atol=1e-9, err_msg="all nine columns")
    values = np.linalg.svd(centred[:, :9], compute_uv=False) ** 2 / 39
    np.testing.assert_allclose((directions[:, :9] ** 2).sum(1), values, atol=1e-9, err_msg="ordered by variance")
    fitted = np.linalg.lstsq(scores, centred[:, 9:], rcond=None)[0]
    np.testing.assert_allclose(directions[:, 9:], fitted, atol=1e-9, err_msg="the joints follow")


@pytest.fixture
def linear_bodies():
    """A sample whose coordinates are Gaussian, measurements that are linear in it, and a survey it can meet."""
    rng = np.random.default_rng(5)
    vertices, joints = rng.normal(size=(300, 10, 3)) + 5, rng.normal(size=(300, 24, 3))
    slopes = 0.1 * rng.normal(size=(14, 30))

    def measure(points, _joints):
        return pd.DataFrame(100 + (points.reshape(len(points), -1) - 5) @ slopes.T, columns=list(COLUMNS))

    real = measure(vertices, joints)
    statistics = Statistics(
        300,
        real.mean().to_numpy() * 1.01,
        real.std().to_numpy() * 1.3,
        np.corrcoef(real.T),
        slopes[:, 0],
        slopes[:, 0],
        {},
    )
    return vertices, joints, statistics, measure


def test_calibrate_reaches_the_survey(linear_bodies, monkeypatch):
    vertices, joints, statistics, measure = linear_bodies
    monkeypatch.setattr(population, "NUM_DIRECTIONS", 30)
    moved, moved_joints = population.calibrate(vertices, joints, statistics, measure, 30)
    got = measure(moved, moved_joints)
    required = [not name.endswith(("length", "height")) for name in COLUMNS]
    np.testing.assert_allclose(got.mean()[required], statistics.mean[required], rtol=0.01)
    np.testing.assert_allclose(got.std()[required], statistics.deviation[required], rtol=0.05)
    assert moved.shape == vertices.shape and moved_joints.shape == joints.shape
    assert population.largest_miss(measure(vertices, joints), statistics.mean, statistics) > 2, "1 / 1.3 of a deviation"


def test_calibrate_keeps_the_best_round(linear_bodies, monkeypatch):
    vertices, joints, statistics, measure = linear_bodies
    monkeypatch.setattr(population, "NUM_DIRECTIONS", 30)
    monkeypatch.setattr(population, "NUM_ROUNDS", 4)
    tried, misses = [], iter([0.9, 0.4, 0.7, 0.5])
    project = population.project
    monkeypatch.setattr(population, "project", lambda *given: tried.append(project(*given)) or tried[-1])
    monkeypatch.setattr(population, "largest_miss", lambda *given: next(misses))
    moved, _ = population.calibrate(vertices, joints, statistics, measure, 30)
    flat = np.concatenate([vertices.reshape(300, -1), joints.reshape(300, -1)], axis=1)
    _, directions = population.principal_directions(flat - flat.mean(0), 30, 30)
    bodies = [(flat.mean(0) + scores @ directions)[:, :30].reshape(vertices.shape) for scores in tried]
    np.testing.assert_allclose(moved, bodies[1], atol=1e-9)
    assert np.abs(bodies[3] - bodies[1]).max() > 1e-3, "the last round differs"


def test_largest_miss_in_units_of_what_is_allowed():
    names, rng = list(COLUMNS), np.random.default_rng(2)
    got = pd.DataFrame(rng.normal(100, 5, (50, 14)), columns=names)
    wanted, deviation, correlation = got.mean().to_numpy().copy(), got.std().to_numpy().copy(), np.corrcoef(got.T)
    exact = Statistics(50, wanted, deviation, correlation, wanted, wanted, {})
    assert population.largest_miss(got, wanted, exact) == pytest.approx(0, abs=1e-9)
    place = names.index("waist_girth")
    wanted[place] /= 1.06
    assert population.largest_miss(got, wanted, exact) == pytest.approx(2), "6 % of a mean, 3 allowed"
    wanted[place] *= 1.06
    wanted[names.index("knee_height")] *= 2
    assert population.largest_miss(got, wanted, exact) == pytest.approx(0, abs=1e-9), "means of lengths do not count"
    deviation[names.index("stature")] /= 1.3
    assert population.largest_miss(got, wanted, exact) == pytest.approx(3), "30 % of a deviation, 10 allowed"
    correlation[names.index("mass_root"), place] += 0.5
    assert population.largest_miss(got, wanted, exact) == pytest.approx(5), "0.5 of a correlation, 0.1 allowed"
