"""The optimal transport loss image by image: Psi on each image's own 16 rows, cosines pair by pair."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .sinkhorn import sinkhorn_plan


def cosine(first: list[float], second: list[float]) -> float:
    product = sum(x * y for x, y in zip(first, second))
    return product / math.sqrt(sum(x * x for x in first)) / math.sqrt(sum(y * y for y in second))


def cost_matrix(features: Tensor, phrases: Tensor) -> list[list[float]]:
    """1 - cosine of each patch [N, d'] with each projected phrase [M, d']."""
    return [[1 - cosine(f, h) for h in phrases.tolist()] for f in features.tolist()]


def ot_loss(
    local_features: Tensor,
    phrase_table: Tensor,
    phrase_choices: Tensor,
    psi: Callable[[Tensor], Tensor],
    reg: float,
    num_iters: int,
) -> float:
    """Mean of <T, C> over the images [B, N, d'], from the table of text embeddings [32, d] and choices [B, 16]."""
    total = 0.0
    for features, choices in zip(local_features, phrase_choices.tolist()):
        phrases = psi(phrase_table[[2 * pair + choice for pair, choice in enumerate(choices)]])
        cost = cost_matrix(features, phrases)
        plan = sinkhorn_plan(cost, reg, num_iters)
        total += sum(t * c for plan_row, cost_row in zip(plan, cost) for t, c in zip(plan_row, cost_row))
    return total / len(local_features)


def centred(features: Tensor, center: str) -> Tensor:
    """Patches [B, N, d'] minus the mean of their image's patches, or of all patches, one subtraction at a time."""
    everything = [patch for image in features for patch in image]
    images = []
    for image in features:
        group = list(image) if center == "image" else everything
        mean = sum(group[1:], group[0]) / len(group)
        images.append(torch.stack([patch - mean for patch in image]))
    return torch.stack(images) if center != "none" else features


def ot_loss_with_gradients(features: Tensor, projected: Tensor, choices: Tensor, reg: float, num_iters: int) -> Tensor:
    """The loss for projected phrases [32, d'], with each plan held constant; torch derives its gradients."""
    total = features.new_zeros(())
    for image, chosen in zip(features, choices.tolist()):
        phrases = projected[[2 * pair + choice for pair, choice in enumerate(chosen)]]
        plan = sinkhorn_plan(cost_matrix(image.detach(), phrases.detach()), reg, num_iters)
        for patch, plan_row in zip(image, plan):
            for phrase, mass in zip(phrases, plan_row):
                total = total + mass * (1 - patch @ phrase / (patch @ patch).sqrt() / (phrase @ phrase).sqrt())
    return total / len(features)
