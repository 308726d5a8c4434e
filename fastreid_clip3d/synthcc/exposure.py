"""What a camera makes of the light that reaches it: white balance, vignette, tone, sharpness and noise.

Legend: B images of a batch, H x W their size.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastreid_clip3d.synthcc.camera import CAMERAS, CameraProfile, Shot


def through_camera(linear: Tensor, shots: list[Shot], noise: Tensor) -> Tensor:
    """Pictures, uint8 [B, 3, H, W], sRGB.

    Args:
        linear: float32 [B, 3, H, W], linear RGB at 0 or above.
        shots: one per image; its camera decides.
        noise: float32 [B, 3, H, W], standard normal.
    """
    profiles = [CAMERAS[shot.camera] for shot in shots]
    gains = [[channel * shot.gain for channel in profile.white_balance] for profile, shot in zip(profiles, shots)]
    picture = linear * torch.tensor(gains)[:, :, None, None]
    picture = _developed(_vignetted(picture, profiles), profiles)
    for row, profile in enumerate(profiles):
        picture[row : row + 1] = _softened(picture[row : row + 1], profile)
    noise = noise * 0.6 + noise.mean(1, keepdim=True) * 0.7
    picture = picture + noise * torch.tensor([profile.noise for profile in profiles])[:, None, None, None]
    return (picture.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _vignetted(picture: Tensor, profiles: list[CameraProfile]) -> Tensor:
    """Darker towards the corners."""
    height, width = picture.shape[2:]
    grid_y, grid_x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    vignette = torch.tensor([profile.vignette for profile in profiles])[:, None, None]
    return picture * (1 - vignette * (0.5 * grid_x**2 + 0.5 * grid_y**2))[:, None]


def _developed(picture: Tensor, profiles: list[CameraProfile]) -> Tensor:
    """From linear RGB to sRGB, with each camera's contrast and saturation."""
    picture = picture.clamp(0, 4)
    picture = picture / (1 + (picture - 0.8).clamp_min(0))  # a soft shoulder instead of burnt-out highlights
    picture = picture.clamp(1e-6, 1) ** (1 / 2.2)
    contrast = torch.tensor([profile.contrast for profile in profiles])[:, None, None, None]
    saturation = torch.tensor([profile.saturation for profile in profiles])[:, None, None, None]
    picture = (picture - 0.45) * contrast + 0.45
    grey = picture.mean(1, keepdim=True)
    return grey + (picture - grey) * saturation


def _softened(picture: Tensor, profile: CameraProfile) -> Tensor:
    """One picture [1, 3, H, W] with the camera's blur, and as if it came from fewer pixels."""
    height, width = picture.shape[2:]
    if profile.blur > 0:
        picture = _blur(picture, profile.blur * (height / 128))
    if profile.low_resolution > 1:
        small = max(8, round(height / profile.low_resolution)), max(4, round(width / profile.low_resolution))
        picture = F.interpolate(picture, small, mode="area")
        picture = F.interpolate(picture, (height, width), mode="bilinear", align_corners=False)
    return picture


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [1, 3, H, W]."""
    radius = max(1, int(np.ceil(2.5 * sigma)))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    image = F.conv2d(F.pad(image, (radius, radius, 0, 0), mode="replicate"), kernel, groups=3)
    return F.conv2d(F.pad(image, (0, 0, radius, radius), mode="replicate"), kernel.transpose(2, 3), groups=3)
