"""Random views of a batch of small pictures, all at once in torch: mirror, shift, scale and a little colour."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def augment(images: torch.Tensor, generator: torch.Generator, colour: float = 0.25) -> torch.Tensor:
    """Random views.

    Args:
        images: float [B, 3, H, W], values 0..1.
        generator: source of the randomness (CPU).
        colour: strength of brightness, contrast and per-channel gain, relative.

    Returns:
        float [B, 3, H, W], values 0..1. Both axes are scaled alike, so that a body keeps its proportions.
    """
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    scale = uniform(0.97, 1.03)  # no wider: stature varies by 4 %, and a fixed camera shows it
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    zeros = torch.zeros(count)
    matrix = torch.stack(
        (
            torch.stack((scale * mirror, zeros, uniform(-0.08, 0.08)), dim=-1),
            torch.stack((zeros, scale, uniform(-0.04, 0.04)), dim=-1),
        ),
        dim=1,
    )
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    gain = uniform(1 - colour, 1 + colour, 1, 1, 1) * uniform(1 - colour / 3, 1 + colour / 3, 3, 1, 1)
    contrast = uniform(1 - colour, 1 + colour, 1, 1, 1)
    grey = torch.rand(count, 1, 1, 1, generator=generator) < 0.1
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = ((images - mean) * contrast + mean) * gain
    return torch.where(grey, images.mean(dim=1, keepdim=True), images).clamp(0, 1)
