"""Global distillation: the student's global feature follows the teacher's image embedding (paper, Eq. 8)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fastreid_clip3d.modeling.losses.directions import scale_and_norms
from fastreid_clip3d.modeling.losses.mlp import MLP

Reduction = Literal["mean", "sum", "cosine", "centred_cosine"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


class GlobalDistillLoss(nn.Module):
    """``|| Phi(g) - f_id ||^2``, averaged over the batch (L_global in Eq. 10).

    With "cosine" both vectors have length 1 first, so the loss is ``2 - 2 cos(Phi(g), f_id)``: unlike the other two it
    cannot be met by making f_id short. It can be met by a direction that all images share, since pooled features are
    positive. "centred_cosine" first subtracts from both vectors their mean over the images that the loss is called
    with (the real half of one process), so that only what differs between the images counts. These two readings are
    not in the paper.

    Args:
        teacher_dim: d, width of g.
        feat_dim: d', width of f_id.
        hidden_dim: hidden width of Phi; 0 means ``feat_dim``.
        reduction: over the d' features: "mean" (torch's mean squared error), "sum" (Eq. 8 to the letter), "cosine" or
            "centred_cosine".

    Raises:
        ValueError: ``reduction`` is none of them.

    >>> import torch
    >>> loss = GlobalDistillLoss(teacher_dim=768, feat_dim=2048)
    >>> g = torch.randn(4, 768)
    >>> loss(loss.projection(g), g).item()  # f_id = Phi(g)
    0.0
    """

    def __init__(self, teacher_dim: int, feat_dim: int, hidden_dim: int = 0, reduction: Reduction = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"GlobalDistillLoss: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        self.projection = MLP(teacher_dim, hidden_dim or feat_dim, feat_dim)
        self.reduction = reduction

    def forward(self, features: Tensor, teacher_features: Tensor) -> Tensor:
        """The loss, a float32 scalar. ``features``: f_id [B, d']; ``teacher_features``: g [B, d], any float type."""
        if len(features) != len(teacher_features):
            raise ValueError(
                f"GlobalDistillLoss: {len(features)} student features and {len(teacher_features)} teacher features"
            )
        target = self.projection(teacher_features.to(self.projection.dtype))
        if features.dtype.itemsize < 4:
            features = features.float()
        count = max(len(features), 1)
        if self.reduction in ("cosine", "centred_cosine"):
            if self.reduction == "centred_cosine" and count > 1:
                target, features = target - target.mean(0), features - features.mean(0)
            with torch.autocast(device_type=features.device.type, enabled=False):
                (one, one_norm), (other, other_norm) = scale_and_norms(target), scale_and_norms(features)
                return (2 - 2 * (one.to(other.dtype) * other).sum(1) / (one_norm * other_norm)).sum() / count
        total = (target.to(features.dtype) - features).square().sum()
        return total / (count * features.shape[1] if self.reduction == "mean" else count)
