"""Random views of a whole batch of small pictures: mirror, shift, colours, and a patch that hides a part."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def augment(
    images: torch.Tensor, generator: torch.Generator, colour: float = 0.25, hidden: float = 0.0
) -> torch.Tensor:
    """A random view of each image. Both axes are scaled alike, so that a body keeps its proportions.

    Args:
        images: float [B, 3, H, W], values 0..1, on any device.
        generator: source of the randomness (CPU): a seed gives the same views on every device.
        colour: strength of the changes of brightness, contrast and gain per channel. Above 0, a tenth of the images
            also gets its channels exchanged, and a tenth becomes grey: clothes have a colour, a body's shape has none.
        hidden: share of the images in which a rectangle is painted over.

    Returns:
        float [B, 3, H, W], values 0..1.
    """
    count, device = len(images), images.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (torch.rand(count, *shape, generator=generator) * (high - low) + low).to(device)

    scale = uniform(0.97, 1.03)  # a small range: stature varies by 4 %, and a fixed camera shows it
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    zeros = torch.zeros(count, device=device)
    matrix = torch.stack(
        (
            torch.stack((scale * mirror, zeros, uniform(-0.08, 0.08)), dim=-1),
            torch.stack((zeros, scale, uniform(-0.04, 0.04)), dim=-1),
        ),
        dim=1,
    )
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if colour:
        images = _recoloured(images, colour, uniform)
    return _partly_hidden(images, hidden, uniform).clamp(0, 1)


def _recoloured(images: torch.Tensor, colour: float, uniform: Callable[..., torch.Tensor]) -> torch.Tensor:
    order = uniform(0, 1, 3).argsort(dim=1)
    order = torch.where(uniform(0, 1, 1) < 0.1, order, torch.arange(3, device=images.device))
    images = images.gather(1, order[:, :, None, None].expand_as(images))
    gain = uniform(1 - colour, 1 + colour, 1, 1, 1) * uniform(1 - colour / 2, 1 + colour / 2, 3, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = ((images - mean) * uniform(1 - colour, 1 + colour, 1, 1, 1) + mean) * gain
    return torch.where(uniform(0, 1, 1, 1, 1) < 0.1, images.mean(dim=1, keepdim=True), images)


def _partly_hidden(images: torch.Tensor, share: float, uniform: Callable[..., torch.Tensor]) -> torch.Tensor:
    height, width = images.shape[2:]
    rows, columns = (torch.arange(size, device=images.device) / size for size in (height, width))
    tall, wide = uniform(0.08, 0.3, 1), uniform(0.15, 0.5, 1)
    top, left = uniform(0, 1, 1) * (1 - tall), uniform(0, 1, 1) * (1 - wide)
    inside = ((rows >= top) & (rows < top + tall))[:, None, :, None] & ((columns >= left) & (columns < left + wide))[
        :, None, None
    ]
    inside &= uniform(0, 1, 1, 1, 1) < share
    return torch.where(inside, uniform(0, 1, 3, 1, 1), images)
