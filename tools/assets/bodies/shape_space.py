"""The mean, the principal components and the joint regressor of sampled bodies.

Shape letters: N bodies, V vertices, F faces.
"""

from __future__ import annotations

import numpy as np

from tools.assets.bodies.factory import Sample

NUM_COMPONENTS = 10
"""K, the shape components of the embedded models."""


def shape_space(
    vertices: np.ndarray, faces: np.ndarray, count: int = NUM_COMPONENTS
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean [V, 3], principal components times their standard deviation [V, 3, count], and their share of the variance.

    A positive coefficient makes the body's volume larger.
    """
    samples = len(vertices)
    mean = vertices.mean(0)
    centred = (vertices - mean).reshape(samples, -1)
    gram = centred @ centred.T / (samples - 1)
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    directions = (centred.T @ vectors / np.sqrt(samples - 1)).reshape(*mean.shape, count)
    directions *= np.sign(np.einsum("vik,vi->k", directions, _volume_gradient(mean, faces)))
    return mean, directions, float(values.sum() / np.trace(gram))


def _volume_gradient(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Derivative [V, 3] of a closed mesh's volume by its vertices."""
    a, b, c = vertices[faces].swapaxes(0, 1)
    gradient = np.zeros_like(vertices)
    for corner, part in ((0, np.cross(b, c)), (1, np.cross(c, a)), (2, np.cross(a, b))):
        np.add.at(gradient, faces[:, corner], part / 6.0)
    return gradient


def project(vertices: np.ndarray, mean: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The nearest members [N, V, 3] of the shape space to bodies [N, V, 3]."""
    flat = directions.reshape(-1, directions.shape[-1])
    centred = (vertices - mean).reshape(len(vertices), -1)
    betas = centred @ flat / (flat**2).sum(0)
    return mean + (betas @ flat.T).reshape(vertices.shape)


def joint_regressor(sample: Sample, bodies: int = 400, candidates: int = 300) -> np.ndarray:
    """Non-negative rows [24, V] of sum 1 that map vertices to the skeleton's joints (least squares)."""
    import scipy.optimize

    step = max(1, len(sample.vertices) // bodies)
    vertices, joints = sample.vertices[::step], sample.joints[::step]
    mean_vertices, mean_joints = vertices.mean(0), joints.mean(0)
    regressor = np.zeros((joints.shape[1], vertices.shape[1]))
    for joint in range(joints.shape[1]):
        near = np.argsort(((mean_vertices - mean_joints[joint]) ** 2).sum(1), kind="stable")[:candidates]
        equations = vertices[:, near].transpose(0, 2, 1).reshape(-1, candidates)
        targets = joints[:, joint].reshape(-1)
        # One equation of large weight keeps the sum at 1; the mean body has the same weight, so its joints are exact.
        heavy = 100.0
        rows = np.concatenate([equations, heavy * mean_vertices[near].T, np.full((1, candidates), heavy)])
        solution, _ = scipy.optimize.nnls(
            rows, np.concatenate([targets, heavy * mean_joints[joint], [heavy]]), maxiter=100 * candidates
        )
        solution[solution < 1e-3] = 0.0
        regressor[joint, near] = solution / solution.sum()
    return regressor
