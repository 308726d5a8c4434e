"""From any picture to the student's input: 8-bit RGB, resized as fast-reid's test transforms resize.

H, W: size of a picture. h, w: input size of the student.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from fastreid.config import CfgNode
from PIL import Image
from torch import Tensor
from torchvision import transforms

from fastreid_clip3d.common.images import AnyImage, Channels, as_rgb
from fastreid_clip3d.errors import ClearError

InputPixels = Literal["raw", "normalised"]
"""What an exported file takes: pixels 0..255, or pixels that :func:`imagenet_normalised` has changed."""
Interpolation = Literal["bicubic", "bilinear"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB values in 0..1. Most trackers and torchvision normalise crops with them."""


def imagenet_normalised(pixels: Tensor) -> Tensor:
    """Pixels [B, 3, h, w] in 0..255 as (x / 255 - mean) / std, float32."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels.float() / 255 - mean) / std


@dataclass(frozen=True)
class InputSize:
    """The size of the student's input: ``INPUT.SIZE_TEST`` and, where enabled, ``INPUT.CROP.SIZE``.

    Attributes:
        resize: (height, width); a single number is the shorter side; empty: no resizing.
        crop: (height, width) cut from the middle afterwards, or a single number for both; empty: no cropping.
        interpolation: PIL's filter, antialiased.
    """

    resize: tuple[int, ...]
    crop: tuple[int, ...] = ()
    interpolation: Interpolation = "bicubic"

    @cached_property
    def steps(self) -> list[Any]:
        """The transforms, in order."""
        steps: list[Any] = []
        if self.resize:
            interpolation = transforms.InterpolationMode(self.interpolation)
            steps.append(transforms.Resize(_as_torchvision(self.resize), interpolation=interpolation))
        if self.crop:
            steps.append(transforms.CenterCrop(_as_torchvision(self.crop)))
        return steps

    @classmethod
    def from_config(cls, cfg: CfgNode) -> InputSize:
        """The sizes of fast-reid's ``build_transforms(cfg, is_train=False)``.

        Raises:
            ClearError: the config leaves the size to each picture, so that pictures cannot form a batch.
        """
        resize = tuple(cfg.INPUT.SIZE_TEST) if cfg.INPUT.SIZE_TEST[0] > 0 else ()
        recipe = cls(resize, tuple(cfg.INPUT.CROP.SIZE) if cfg.INPUT.CROP.ENABLED else ())
        if not recipe.crop and len(recipe.resize) != 2:
            raise ClearError(
                f"INPUT.SIZE_TEST is {list(cfg.INPUT.SIZE_TEST)}, which leaves pictures of different sizes; set it to "
                "[height, width] in the run's config.yaml."
            )
        return recipe

    @classmethod
    def from_metadata(cls, described: Mapping[str, Any]) -> InputSize:
        """The sizes that ``clip3d export`` wrote into a file: ``resize``, ``crop`` and ``interpolation``.

        Raises:
            KeyError: one of the first two is missing. ValueError: a value that no export writes.
        """
        resize, crop = (_as_size(name, described[name]) for name in ("resize", "crop"))
        words = described.get("interpolation", "bicubic")
        known = [name for name in get_args(Interpolation) if str(words).partition(",")[0] == name]
        if not known or (not crop and len(resize) != 2):
            raise ValueError(f"resize {list(resize)}, crop {list(crop)} and interpolation {words!r}")
        return cls(resize, crop, known[0])

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        size = self.crop or self.resize
        return (size[0], size[0]) if len(size) == 1 else (size[0], size[1])

    def apply(self, picture: Image.Image) -> np.ndarray:
        """An RGB picture as uint8 [h, w, 3]."""
        for step in self.steps:
            picture = step(picture)
        return np.asarray(picture)


def _as_size(name: str, values: Any) -> tuple[int, ...]:
    is_size = isinstance(values, list) and len(values) <= 2
    if not is_size or not all(type(value) is int and value > 0 for value in values):
        raise ValueError(f"{name} {values!r}")
    return tuple(values)


def _as_torchvision(size: tuple[int, ...]) -> int | list[int]:
    return size[0] if len(size) == 1 else list(size)


def one_by_one(images: AnyImage | Iterable[AnyImage]) -> list[AnyImage]:
    """A single picture, a sequence of pictures or a batch [B, ...] as a list of pictures."""
    if isinstance(images, (str, Path, Image.Image)):
        return [images]
    if isinstance(images, (np.ndarray, Tensor)):
        return [images] if images.ndim < 4 else list(images)
    if isinstance(images, Iterable):
        return list(images)
    raise ClearError(
        f"Images are paths, PIL images, uint8 arrays [H, W, 3], a sequence of these or a uint8 tensor [B, 3, H, W]; "
        f"got {type(images).__name__}."
    )


def to_pixels(picture: AnyImage, recipe: InputSize, channels: Channels = "RGB", where: str = "the image") -> np.ndarray:
    """One picture as the student's input, uint8 [h, w, 3], RGB.

    Args:
        picture: a path; a PIL image of any mode; a uint8 array [H, W, 3] or [H, W]; a uint8 tensor [3, H, W].
        channels: order of the colours in arrays and tensors; files and PIL images know their own.
        where: how an error calls this picture.

    Raises:
        UnreadableImage: a file that cannot be read. ClearError: pixels of another kind or shape, or none at all.
    """
    return recipe.apply(as_rgb(picture, channels, where))


def as_batch(pixels: list[np.ndarray], size: tuple[int, int]) -> Tensor:
    """Pictures uint8 [h, w, 3] as one batch, uint8 [B, 3, h, w]; the layout in memory stays channels last."""
    if not pixels:
        return torch.zeros((0, 3, *size), dtype=torch.uint8)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
