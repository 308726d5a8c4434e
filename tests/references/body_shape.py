"""The body shape loss by posing: both meshes go through smplx in the zero pose and are subtracted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import smplx
import torch
from torch import Tensor

from fastreid_clip3d.body.model import BodyModel

NUM_JOINTS = 24


def random_body(seed: int, num_vertices: int = 60, num_betas: int = 10) -> SimpleNamespace:
    """A small body in the SMPL schema, about 1.7 m tall: template [V, 3], shapedirs [V, 3, K], the rest; as numpy."""
    generator = np.random.default_rng(seed)
    shared = np.random.default_rng(0).uniform(-0.85, 0.85, (num_vertices, 3))
    regressor = generator.uniform(size=(NUM_JOINTS, num_vertices))
    weights = generator.uniform(size=(num_vertices, NUM_JOINTS))
    parents = np.maximum(np.arange(NUM_JOINTS) - 1, 0)
    return SimpleNamespace(
        v_template=shared + 0.01 * generator.normal(size=(num_vertices, 3)),
        shapedirs=0.01 * generator.normal(size=(num_vertices, 3, num_betas)),
        posedirs=0.001 * generator.normal(size=(num_vertices, 3, 9 * (NUM_JOINTS - 1))),
        J_regressor=regressor / regressor.sum(1, keepdims=True),
        weights=weights / weights.sum(1, keepdims=True),
        kintree_table=np.stack([parents, np.arange(NUM_JOINTS)]),
        f=generator.integers(0, num_vertices, (2 * num_vertices, 3)),
    )


def arrays_of(model: BodyModel) -> SimpleNamespace:
    """A loaded body model with the field names of `random_body`; pose blend shapes that it lacks are zero."""
    posedirs = model.posedirs.numpy()
    if posedirs.shape[-1] == 0:
        posedirs = np.zeros((model.num_vertices, 3, 9 * (NUM_JOINTS - 1)))
    return SimpleNamespace(
        v_template=model.v_template.numpy(),
        shapedirs=model.shapedirs.numpy(),
        posedirs=posedirs,
        J_regressor=model.J_regressor.numpy(),
        weights=model.weights.numpy(),
        kintree_table=np.stack([model.parents.numpy(), np.arange(NUM_JOINTS)]),
        f=model.faces.numpy(),
    )


def to_smplx(body: SimpleNamespace, dtype: torch.dtype) -> smplx.SMPL:
    struct = smplx.utils.Struct(**vars(body))
    return smplx.SMPL(
        model_path="",
        data_struct=struct,
        num_betas=body.shapedirs.shape[2],
        dtype=dtype,
        vertex_ids=dict.fromkeys(smplx.vertex_ids.vertex_ids["smplh"], 0),
    )


def zero_pose_vertices(body: smplx.SMPL, betas: Tensor) -> Tensor:
    """The posed mesh [1, V, 3] for betas [1, K], all joint angles zero."""
    zeros = betas.new_zeros(1, 3)
    return body(betas=betas, body_pose=betas.new_zeros(1, 69), global_orient=zeros, transl=zeros).vertices


def body_shape_loss(
    neutral: smplx.SMPL, targets: list[smplx.SMPL], predicted_betas: Tensor, betas: Tensor, gender: Tensor
) -> Tensor:
    """Squared distance of the meshes, summed over vertices and coordinates, mean over the images."""
    total = predicted_betas.new_zeros(())
    for predicted, true, which in zip(predicted_betas, betas, gender.tolist()):
        difference = zero_pose_vertices(neutral, predicted[None]) - zero_pose_vertices(targets[which], true[None])
        total = total + (difference**2).sum()
    return total / len(betas)
