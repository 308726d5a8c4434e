"""Linear blend skinning against smplx, against the definition joint by joint, and its gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import smplx.lbs
import torch
from scipy.spatial.transform import Rotation

from fastreid_clip3d.body.skinning import rotation_matrices, skin
from tests.references.body_shape import random_body
from tests.references.skinning import pose_body

PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]


def body_and_poses(seed: int = 0, count: int = 3):
    """Float64: a random body of 60 vertices, betas [B, 10], shaped bodies [B, 60, 3], poses [B, 24, 3] (last 0)."""
    body = random_body(seed)
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.as_tensor(value) for name, value in vars(body).items()}
    betas = torch.randn(count, 10, generator=generator, dtype=torch.float64)
    poses = torch.randn(count, 24, 3, generator=generator, dtype=torch.float64)
    poses[-1] = 0
    shaped = tensors["v_template"] + torch.einsum("vik,bk->bvi", tensors["shapedirs"], betas)
    return tensors, betas, shaped, poses


@pytest.mark.parametrize("seed", range(3))
def test_skinning_agrees_with_smplx(seed):
    body, betas, shaped, poses = body_and_poses(seed)
    expected = smplx.lbs.lbs(
        betas,
        poses.flatten(1),
        body["v_template"],
        body["shapedirs"],
        body["posedirs"].reshape(-1, 207).T,
        body["J_regressor"],
        torch.tensor(PARENTS),
        body["weights"],
    )
    found = skin(shaped, poses, body["posedirs"], body["J_regressor"], PARENTS, body["weights"])
    for ours, theirs in zip(found, expected):
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_skinning_agrees_with_the_definition():
    body, _, shaped, poses = body_and_poses(4)
    vertices, joints = skin(shaped, poses, body["posedirs"][..., :0], body["J_regressor"], PARENTS, body["weights"])
    for row in range(len(shaped)):
        rest = (body["J_regressor"] @ shaped[row]).numpy()
        expected = pose_body(shaped[row].numpy(), rest, PARENTS, body["weights"].numpy(), poses[row].numpy())
        np.testing.assert_allclose(vertices[row].numpy(), expected[0], atol=1e-12)
        np.testing.assert_allclose(joints[row].numpy(), expected[1], atol=1e-12)


def test_rotation_matrices_are_scipys():
    """Every angle from none over tiny ones to more than a full turn."""
    directions = np.random.default_rng(0).normal(size=(9, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    angles = np.array([0.0, 1e-12, 1e-9, 1e-7, 1e-3, 1.0, math.pi, 2 * math.pi, 7.0])
    vectors = directions * angles[:, None]
    expected = Rotation.from_rotvec(vectors).as_matrix()
    np.testing.assert_allclose(rotation_matrices(torch.as_tensor(vectors)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-10, 1.0])
def test_gradient_of_rotations_is_the_matrix_exponentials(scale):
    vectors = (
        scale * torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ).requires_grad_()
    factors = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (found,) = torch.autograd.grad((rotation_matrices(vectors) * factors).sum(), vectors)
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(5, 3, 3)
    (expected,) = torch.autograd.grad((torch.linalg.matrix_exp(cross) * factors).sum(), vectors)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
