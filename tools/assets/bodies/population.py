"""Gives a sample of bodies the means, deviations and correlations that a survey of adults measured.

anny's controls say which shapes exist, not how common they are. We describe the sample as a Gaussian in K principal
directions. We replace the distribution of the surveyed measurements m by the survey's; the distribution of the shape
given m stays anny's. Of all Gaussians with these measurements it is the nearest to anny's (least Kullback-Leibler
divergence; Csiszar 1975, I-projection). With m ~ m0 + J z and z ~ N(0, I) in anny's sample, and the survey's
covariance T:

    P = (J J')^-1,    covariance of z = I - J' P J + J' P T P J,    mean of z = J' (J J' + R)^-1 (mean - m0)

R, small, lets a mean miss its target where anny has no such bodies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from fastreid_clip3d.body.sampling import sample_betas
from tools.assets.bodies.survey import COLUMNS, LENGTHS, Statistics

NUM_DIRECTIONS = 40
NUM_ROUNDS = 10
NUM_TRIED = 2000
MEAN_TOLERANCE = 0.01
MASS_TOLERANCE = 0.002  # the mass is the cube of what is calibrated

Measure = Callable[[np.ndarray, np.ndarray], pd.DataFrame]


def calibrate(
    vertices: np.ndarray, joints: np.ndarray, statistics: Statistics, measure: Measure, num_betas: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bodies of the surveyed population: vertices [N, V, 3] and joints [N, 24, 3].

    Each round draws people from the first `num_betas` components of the current sample, measures them and corrects the
    targets by what they miss, since girths are not linear and few components hold less than all the variance. The best
    round counts.

    Args:
        vertices: [N, V, 3], the sample.
        joints: [N, 24, 3].
        statistics: the survey's, of the same sex.
        measure: returns the surveyed measurements of vertices and joints, one row per body.
        num_betas: components that the final model will keep.
    """
    count, num_coordinates = len(vertices), vertices[0].size
    flat = np.concatenate([vertices.reshape(count, -1), joints.reshape(count, -1)], axis=1)
    centre = flat.mean(0)
    scores, directions = principal_directions(flat - centre, num_coordinates, NUM_DIRECTIONS)
    measured = measure(vertices, joints).to_numpy()
    fitted, *_ = np.linalg.lstsq(np.concatenate([np.ones((count, 1)), scores], axis=1), measured, rcond=None)
    offset, slopes = fitted[0], fitted[1:].T  # m = offset + slopes z

    names = list(COLUMNS)
    wanted = statistics.mean.copy()
    for name in LENGTHS:
        wanted[names.index(name)] = offset[names.index(name)] / offset[0] * wanted[0]
    tolerance = np.diag((MEAN_TOLERANCE * wanted) ** 2)
    tolerance[names.index("mass_root"), names.index("mass_root")] = (MASS_TOLERANCE * wanted[1]) ** 2

    mean, deviation, correlation = wanted.copy(), statistics.deviation.copy(), statistics.correlation.copy()
    betas = sample_betas(NUM_TRIED, 0, num_betas).astype(np.float64)
    best, least_miss = flat, np.inf
    for _ in range(NUM_ROUNDS):
        moved = project(scores, slopes, offset, mean, correlation * np.outer(deviation, deviation), tolerance)
        people = centre + moved @ directions
        tried = draw_from_components(people, num_coordinates, num_betas, betas)
        got = measure(tried[:, :num_coordinates].reshape(-1, *vertices.shape[1:]), _joints(tried, num_coordinates))
        miss = largest_miss(got, wanted, statistics)
        if miss < least_miss:
            best, least_miss = people, miss
        mean += wanted - got.mean().to_numpy()
        deviation *= (statistics.deviation / got.std().to_numpy()) ** 0.4
        correlation = nearest_correlation(correlation + 0.2 * (statistics.correlation - got.corr().to_numpy()))
    return best[:, :num_coordinates].reshape(vertices.shape), _joints(best, num_coordinates)


def largest_miss(got: pd.DataFrame, wanted: np.ndarray, statistics: Statistics) -> float:
    """The largest error of the required measurements: 1 is 3 % of a mean, 10 % of a deviation, 0.1 of a correlation."""
    required = [name not in LENGTHS for name in COLUMNS]
    mean = np.abs(got.mean().to_numpy() / wanted - 1.0) / 0.03
    deviation = np.abs(got.std().to_numpy() / statistics.deviation - 1.0) / 0.1
    with_mass = list(COLUMNS).index("mass_root")
    correlation = np.abs(got.corr().to_numpy()[with_mass] - statistics.correlation[with_mass]) / 0.1
    girths = [name.endswith("girth") for name in COLUMNS]
    return float(max(mean[required].max(), deviation[required].max(), correlation[girths].max()))


def project(
    scores: np.ndarray,
    slopes: np.ndarray,
    offset: np.ndarray,
    mean: np.ndarray,
    covariance: np.ndarray,
    tolerance: np.ndarray,
) -> np.ndarray:
    """Moves scores [N, K] of mean 0 and covariance I so that offset + slopes z has `mean` and `covariance`.

    The map is symmetric, so the result does not depend on the signs of the principal directions.
    """
    inverse = np.linalg.inv(slopes @ slopes.T)
    gain = slopes.T @ inverse  # [K, M]
    spread = np.eye(slopes.shape[1]) - gain @ slopes + gain @ covariance @ gain.T
    shift = slopes.T @ np.linalg.solve(slopes @ slopes.T + tolerance, mean - offset)
    values, vectors = np.linalg.eigh(spread)
    root = (vectors * np.sqrt(values.clip(0.0))) @ vectors.T
    return shift + scores @ root


def principal_directions(centred: np.ndarray, num_coordinates: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores [N, count] of mean 0 and covariance I, and directions [count, D] with centred ~ scores @ directions.

    The first `num_coordinates` columns, the vertices, decide the order; the others, the joints, follow.
    """
    part = centred[:, :num_coordinates]
    samples = len(centred)
    _, vectors = np.linalg.eigh(part @ part.T / (samples - 1))
    scores = vectors[:, ::-1][:, :count] * np.sqrt(samples - 1)
    return scores, scores.T @ centred / (samples - 1)


def draw_from_components(people: np.ndarray, num_coordinates: int, num_betas: int, betas: np.ndarray) -> np.ndarray:
    """Bodies [B, D] with coefficients `betas` [B, num_betas] in the first components of `people` [N, D]."""
    mean = people.mean(0)
    _, directions = principal_directions(people - mean, num_coordinates, num_betas)
    signs = np.sign(directions[:, :num_coordinates].reshape(num_betas, -1, 3)[..., 1].sum(1) + 1e-12)
    return mean + betas @ (signs[:, None] * directions)


def nearest_correlation(matrix: np.ndarray, least: float = 0.003) -> np.ndarray:
    """A correlation matrix near a symmetric one: eigenvalues of at least `least`, ones on the diagonal."""
    values, vectors = np.linalg.eigh(matrix)
    positive = (vectors * values.clip(least)) @ vectors.T
    scale = np.sqrt(np.diag(positive))
    return positive / np.outer(scale, scale)


def _joints(flat: np.ndarray, num_coordinates: int) -> np.ndarray:
    return flat[:, num_coordinates:].reshape(len(flat), -1, 3)
