"""What the teacher sees of a photo: its own input size by antialiased resizing, its own mean and standard deviation.

The work is split where it is cheap: decoding and resizing in the dataset's worker (8-bit tensors travel), normalising
on the teacher's device.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fastreid_clip3d.common.images import to_rgb
from fastreid_clip3d.errors import ClearError

RESIZE_MODES = ("squash", "pad")
MAX_PADDED_PIXELS = 1 << 28
"""Largest image that padding may make of a smaller one (1 GB of memory): 16,384 pixels high and wide."""

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class ImageTransform:
    """PIL image to the teacher's input as uint8 [3, H, W]. Can be pickled, so each dataset worker can have a copy.

    Args:
        size: (H, W) of the teacher's input, pixels.
        mean, std: the teacher's normalisation, per channel of 0..1 values.
        interpolation: "bicubic" or "bilinear", always antialiased.
        resize: "squash" ignores the aspect ratio; "pad" first pads to the input's aspect ratio with the mean colour.
    """

    def __init__(
        self,
        size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        interpolation: str = "bicubic",
        resize: str = "squash",
    ) -> None:
        if resize not in RESIZE_MODES:
            raise ClearError(f"teacher resize mode '{resize}' is unknown; choose one of: {', '.join(RESIZE_MODES)}.")
        self.size = (int(size[0]), int(size[1]))
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        # open_clip means "bicubic" by "random" at inference
        self.interpolation = "bilinear" if interpolation == "bilinear" else "bicubic"
        self.resize = resize

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """uint8 [3, H, W], values 0..255, for an image of any size and mode.

        Raises:
            ClearError: padding would make a very narrow image larger than `MAX_PADDED_PIXELS`.
        """
        image = to_rgb(image)
        if self.resize == "pad":
            image = self._pad(image)
        height, width = self.size
        image = image.resize((width, height), _RESAMPLING[self.interpolation])
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def _pad(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        padded_width = max(image.width, round(image.height * width / height))
        padded_height = max(image.height, round(image.width * height / width))
        if padded_width * padded_height > max(MAX_PADDED_PIXELS, 4 * image.width * image.height):
            raise ClearError(
                f"an image of {image.height} x {image.width} pixels (height x width) would become {padded_height} x "
                f"{padded_width} when padded to the teacher's aspect ratio. Remove this image, or set "
                "MODEL.TEACHER.RESIZE to squash."
            )
        canvas = Image.new("RGB", (padded_width, padded_height), tuple(round(255 * value) for value in self.mean))
        canvas.paste(image, ((padded_width - image.width) // 2, (padded_height - image.height) // 2))
        return canvas

    def settings(self) -> dict:
        """Everything that decides what the teacher sees, as plain values for a fingerprint."""
        return {
            "size": list(self.size),
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "resize": self.resize,
        }


def normalize(teacher_images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """0..255 images [B, 3, H, W] of any dtype to normalised float32; mean and std are [3, 1, 1] of 0..1 values."""
    return (teacher_images.float() / 255.0 - mean) / std
