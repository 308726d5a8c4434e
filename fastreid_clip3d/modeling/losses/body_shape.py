"""3D reconstruction: the global feature predicts the body's canonical mesh (paper, L_3D of Section 3.4).

S: synthetic images. V: vertices. K: shape coefficients (10). Lengths are metres.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastreid_clip3d.modeling.losses.mlp import MLP

ShapeSpace = tuple[Tensor, Tensor]
"""Template [V, 3] and shape directions [V, 3, K] of a body model."""


class BodyShapeLoss(nn.Module):
    """``|| SMPL(phi(f_id)) - P ||^2`` in the T-pose: summed over vertices and coordinates, averaged over the images.

    A body is linear in its shape coefficients: with the stacked basis ``A = [S_n | -S_g | t_n - t_g]``, 3V x (2K + 1),
    the difference of the predicted neutral mesh and the true mesh of gender g is ``A z``, ``z = [b, b*, 1]``. Its
    squared length is ``z^T G z`` with the Gram matrix ``G = A^T A``, so no mesh is built. Kept is the triangular factor
    R of G (``R^T R = G``): ``|| R z ||^2`` cannot turn negative and rounds like the meshes themselves. R is found in
    float64 when the loss is built and is in no checkpoint.

    Args:
        feat_dim: d', width of f_id.
        hidden_dim: hidden width of phi; 0 means ``feat_dim``.
        neutral: the body that phi's coefficients belong to.
        targets: the bodies of the ground truth, by gender (0 female, 1 male).
        ignore_size: leaves out the part of ``A z`` along uniform scaling and translation of ``t_n``. It is projected
            out of the basis once, so a step costs the same. Not in the paper, where most of L_3D is stature.

    Raises:
        ValueError: if the bodies differ in vertices or coefficients.

    A body of two vertices whose one coefficient moves the first along x, in metres. Coefficients 3 and 1 lie 2 m apart:

    >>> body = torch.zeros(2, 3), torch.tensor([[[1.0], [0.0], [0.0]], [[0.0], [0.0], [0.0]]])
    >>> loss = BodyShapeLoss(feat_dim=8, hidden_dim=0, neutral=body, targets=[body])
    >>> loss.distance(torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([0])).round(decimals=3)
    tensor([4.])
    """

    gram_factors: Tensor

    def __init__(
        self,
        feat_dim: int,
        hidden_dim: int,
        neutral: ShapeSpace,
        targets: Sequence[ShapeSpace],
        ignore_size: bool = False,
    ) -> None:
        super().__init__()
        _, neutral_directions = neutral
        num_vertices, _, num_betas = neutral_directions.shape
        for template, directions in (neutral, *targets):
            if tuple(template.shape) != (num_vertices, 3) or tuple(directions.shape) != (num_vertices, 3, num_betas):
                raise ValueError(
                    f"BodyShapeLoss: all bodies need a template [{num_vertices}, 3] and shape directions "
                    f"[{num_vertices}, 3, {num_betas}], got {tuple(template.shape)} and {tuple(directions.shape)}"
                )
        if not targets:
            raise ValueError("BodyShapeLoss: at least one target body is needed")
        self.num_betas = num_betas
        self.regressor = MLP(feat_dim, hidden_dim or feat_dim, num_betas)
        factors = [_gram_factor(neutral, target, ignore_size) for target in targets]
        self.register_buffer("gram_factors", torch.stack(factors), persistent=False)  # [genders, 2 K + 1, 2 K + 1]

    def predict_betas(self, features: Tensor) -> Tensor:
        """phi: f_id [S, d'] -> shape coefficients of the neutral body [S, K], at least float32."""
        betas = self.regressor(features)
        return betas if betas.dtype == torch.float64 else betas.float()

    def distance(self, predicted_betas: Tensor, betas: Tensor, gender: Tensor) -> Tensor:
        """Squared distance of the two meshes, summed over vertices and coordinates: [S], square metres.

        ``predicted_betas`` [S, K] of the neutral body; ``betas`` [S, K] and ``gender`` int64 [S] of the true one.
        """
        with torch.autocast(device_type=predicted_betas.device.type, enabled=False):
            ones = predicted_betas.new_ones(len(predicted_betas), 1)
            coefficients = torch.cat([predicted_betas, betas.to(predicted_betas.dtype), ones], 1)
            factors = self.gram_factors.to(predicted_betas.dtype)[gender]
            # Not a matmul, so that no TF32 setting can touch the cancellation of near-equal meshes.
            return (factors * coefficients[:, None, :]).sum(2).square().sum(1)

    def forward(self, features: Tensor, betas: Tensor, gender: Tensor) -> Tensor:
        """The loss, a scalar, for f_id [S, d'], true betas [S, K] and gender int64 [S].

        No images give a zero that is part of the graph.
        """
        if tuple(betas.shape) != (len(features), self.num_betas) or tuple(gender.shape) != (len(features),):
            raise ValueError(
                f"BodyShapeLoss: {len(features)} features need betas [{len(features)}, {self.num_betas}] and gender "
                f"[{len(features)}], got {tuple(betas.shape)} and {tuple(gender.shape)}"
            )
        distances = self.distance(self.predict_betas(features), betas, gender.long())
        return distances.sum() / max(len(distances), 1)


def _gram_factor(neutral: ShapeSpace, target: ShapeSpace, ignore_size: bool) -> Tensor:
    """R [2 K + 1, 2 K + 1], float64, with R^T R the Gram matrix of [S_n | -S_g | t_n - t_g].

    With `ignore_size` the basis loses its components along uniform scaling and the three translations of t_n.
    """
    (neutral_template, neutral_directions), (template, directions) = (
        [tensor.detach().cpu().double() for tensor in body] for body in (neutral, target)
    )
    num_betas = directions.shape[2]
    basis = torch.cat(
        [
            neutral_directions.reshape(-1, num_betas),
            -directions.reshape(-1, num_betas),
            (neutral_template - template).reshape(-1, 1),
        ],
        1,
    )
    if ignore_size:
        centred = (neutral_template - neutral_template.mean(0)).reshape(-1, 1)
        moved = torch.eye(3, dtype=basis.dtype).repeat(len(neutral_template), 1)
        free = torch.linalg.qr(torch.cat([centred, moved], 1)).Q
        basis = basis - free @ (free.T @ basis)
    padding = max(basis.shape[1] - len(basis), 0)  # a toy body can have fewer coordinates than coefficients
    basis = torch.nn.functional.pad(basis, (0, 0, 0, padding))
    return torch.linalg.qr(basis, mode="r").R
