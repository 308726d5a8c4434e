"""CAL, the clothes-based adversarial loss of Gu et al. (CVPR 2022), a comparator of the method.

B: images. C: clothes classes (one suit of one person is one class). d': width of the student.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastreid_clip3d.modeling.losses.directions import scale_and_norms

UNLABELLED = -1
"""Clothes id of an image whose clothes nobody labelled."""


class ClothesAdversarialLoss(nn.Module):
    """A cosine classifier of clothes, and a loss that keeps the classifier from finding out which clothes are worn.

    With logits ``l_c = scale * cos(f, w_c)`` (a temperature of 1 / scale), y the clothes of the image, the positives S+
    all clothes of its person (K of them, y included) and the negatives S- the clothes of all other people:

    - ``loss_clothes = -log softmax(l)_y`` teaches the classifier alone: f is taken as a constant;
    - ``loss_cal = -sum_{c in S+} q_c log(exp(l_c) / (exp(l_c) + sum_{j in S-} exp(l_j)))`` with ``q_y = 1 - epsilon +
      epsilon / K`` and ``q_c = epsilon / K`` for the person's other clothes teaches the features alone: w is constant.

    Both are means over the labelled images of the batch; an image without a clothes label (id -1) takes no part. Both
    come from the same state of the classifier, so one backward pass and one optimiser step serve both (the authors step
    the classifier first). The caller decides from which epoch on ``loss_cal`` counts.

    Args:
        feat_dim: d'.
        clothes_pids: int64 [C], the person of each clothes class.
        scale: 1 / tau, 16 in the paper.
        epsilon: weight spread over all clothes of the person, in [0, 1]; 0.1 in the paper.

    Raises:
        ValueError: if a setting is out of range.
    """

    clothes_pids: Tensor

    def __init__(self, feat_dim: int, clothes_pids: Tensor, scale: float = 16.0, epsilon: float = 0.1) -> None:
        super().__init__()
        if clothes_pids.dim() != 1 or len(clothes_pids) < 1:
            raise ValueError(f"ClothesAdversarialLoss: clothes_pids must be [C], got {tuple(clothes_pids.shape)}")
        if not scale > 0:
            raise ValueError(f"ClothesAdversarialLoss: scale must be positive, got {scale}")
        if not 0 <= epsilon <= 1:
            raise ValueError(f"ClothesAdversarialLoss: epsilon must be in [0, 1], got {epsilon}")
        self.scale = float(scale)
        self.epsilon = float(epsilon)
        self.weight = nn.Parameter(F.normalize(torch.randn(len(clothes_pids), feat_dim), dim=1))
        self.register_buffer("clothes_pids", clothes_pids.detach().clone().long(), persistent=False)

    def forward(self, features: Tensor, clothes_ids: Tensor) -> dict[str, Tensor]:
        """The two losses, float32 scalars.

        Args:
            features: [B, d'].
            clothes_ids: int64 [B], 0 .. C - 1, or -1 where the clothes are not labelled.

        Returns:
            ``{"loss_clothes": scalar, "loss_cal": scalar}``; 0 where no image is labelled.
        """
        with torch.autocast(device_type=features.device.type, enabled=False):
            if features.dtype != torch.float64:
                features = features.float()
            weight = self.weight.to(features.dtype)
            labelled = clothes_ids >= 0
            count = labelled.sum().clamp(min=1)
            logits = self._logits(features.detach(), weight)
            loss_clothes = F.cross_entropy(logits, clothes_ids, reduction="sum", ignore_index=UNLABELLED) / count
            adversarial = self._adversarial(self._logits(features, weight.detach()), clothes_ids.clamp(min=0))
            loss_cal = (adversarial * labelled).sum() / count
            return {"loss_clothes": loss_clothes, "loss_cal": loss_cal}

    def _logits(self, features: Tensor, weight: Tensor) -> Tensor:
        scaled, norms = scale_and_norms(features)
        return self.scale * F.linear(scaled, F.normalize(weight, dim=1)) / norms[:, None]

    def _adversarial(self, logits: Tensor, clothes_ids: Tensor) -> Tensor:
        positives = self.clothes_pids[clothes_ids][:, None] == self.clothes_pids[None, :]  # [B, C]
        # A finite stand-in for minus infinity: with one person in all there are no negatives.
        nothing = torch.finfo(logits.dtype).min / 4
        negatives = logits.masked_fill(positives, nothing).logsumexp(1, keepdim=True)
        log_probabilities = logits - torch.logaddexp(logits, negatives)
        weights = self.epsilon * positives.to(logits.dtype) / positives.sum(1, keepdim=True)
        weights = weights.scatter_add(1, clothes_ids[:, None], weights.new_full((len(weights), 1), 1 - self.epsilon))
        return -(weights * log_probabilities).sum(1)
