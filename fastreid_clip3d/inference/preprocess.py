"""Any picture to what the student sees: 8-bit RGB, resized as fast-reid's test transforms resize.

H, W: size of a picture. h, w: input size of the student.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Iterable, Union

import numpy as np
import torch
from fastreid.config import CfgNode
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import transforms

from fastreid_clip3d.compat.pixels import UnreadableImage, read_image
from fastreid_clip3d.errors import ClearError

Picture = Union[str, Path, Image.Image, np.ndarray, Tensor]
CHANNELS = ("RGB", "BGR")


@dataclass(frozen=True)
class InputSize:
    """How a picture becomes the student's input: ``INPUT.SIZE_TEST`` and, where enabled, ``INPUT.CROP.SIZE``.

    Attributes:
        resize: (height, width); a single number is the shorter side; empty: no resizing.
        crop: (height, width) cut from the middle afterwards, or a single number for both; empty: no cropping.
    """

    resize: tuple[int, ...]
    crop: tuple[int, ...] = ()

    @cached_property
    def steps(self) -> list[Any]:
        """The transforms, in order."""
        steps: list[Any] = []
        if self.resize:
            bicubic = transforms.InterpolationMode.BICUBIC
            steps.append(transforms.Resize(_as_torchvision(self.resize), interpolation=bicubic))
        if self.crop:
            steps.append(transforms.CenterCrop(_as_torchvision(self.crop)))
        return steps

    @classmethod
    def from_config(cls, cfg: CfgNode) -> InputSize:
        """The recipe of fast-reid's ``build_transforms(cfg, is_train=False)``.

        Raises:
            ClearError: the config leaves the size to each picture, so that no batch can be made.
        """
        resize = tuple(cfg.INPUT.SIZE_TEST) if cfg.INPUT.SIZE_TEST[0] > 0 else ()
        recipe = cls(resize, tuple(cfg.INPUT.CROP.SIZE) if cfg.INPUT.CROP.ENABLED else ())
        if not recipe.crop and len(recipe.resize) != 2:
            raise ClearError(
                f"INPUT.SIZE_TEST is {list(cfg.INPUT.SIZE_TEST)}, which leaves pictures of different sizes; set it to "
                "[height, width] in the run's config.yaml."
            )
        return recipe

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


def _as_torchvision(size: tuple[int, ...]) -> int | list[int]:
    return size[0] if len(size) == 1 else list(size)


def check_channels(channels: str) -> None:
    """Refuses any order but RGB and BGR.

    Raises:
        ClearError: names both.
    """
    if channels not in CHANNELS:
        raise ClearError(f'channels={channels!r} is unknown; say "RGB" (PIL, torchvision) or "BGR" (OpenCV).')


def one_by_one(images: Picture | Iterable[Picture]) -> list[Picture]:
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


def to_pixels(picture: Picture, recipe: InputSize, channels: str = "RGB", where: str = "the image") -> np.ndarray:
    """One picture as the student's input, uint8 [h, w, 3], RGB.

    Args:
        picture: a path; a PIL image of any mode; a uint8 array [H, W, 3] or [H, W]; a uint8 tensor [3, H, W].
        channels: order of the colours in arrays and tensors; files and PIL images know their own.
        where: how an error calls this picture.

    Raises:
        UnreadableImage: a file that cannot be read. ClearError: pixels of another kind or shape, or none at all.
    """
    return recipe.apply(as_rgb(picture, channels, where))


def as_rgb(picture: Picture, channels: str = "RGB", where: str = "the image") -> Image.Image:
    """One picture in its own size as an 8-bit RGB image; arguments and errors as for :func:`to_pixels`."""
    if isinstance(picture, (str, Path)):
        return read_picture(picture)
    if isinstance(picture, Image.Image):
        if 0 in picture.size:
            raise ClearError(f"{where} has no area: its size is {picture.width} x {picture.height}.")
        return _pil_as_rgb(picture)
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] != 3:
            raise ClearError(f"{where} is a tensor of shape {tuple(picture.shape)}; a picture is [3, H, W].")
        _check_kind(str(picture.dtype).removeprefix("torch."), where)
        array = picture.detach().cpu().permute(1, 2, 0).numpy()
    elif isinstance(picture, np.ndarray):
        array = picture
    else:
        raise ClearError(
            f"{where} is a {type(picture).__name__}; it must be a path, a PIL image, a uint8 array [H, W, 3] or a "
            "uint8 tensor [3, H, W]."
        )
    return _array_as_rgb(array, channels, where)


def _array_as_rgb(array: np.ndarray, channels: str, where: str) -> Image.Image:
    _check_kind(str(array.dtype), where)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] != 3):
        raise ClearError(
            f"{where} has shape {array.shape}; an array is [H, W, 3] or, grey, [H, W], without an alpha channel."
        )
    if 0 in array.shape:
        raise ClearError(
            f"{where} has no area: its shape is {array.shape}. A box outside the frame gives such a crop; leave it out."
        )
    if array.ndim == 2:
        return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
    return Image.fromarray(np.ascontiguousarray(array if channels == "RGB" else array[:, :, ::-1]))


def _check_kind(kind: str, where: str) -> None:
    if kind != "uint8":
        raise ClearError(
            f"{where} has {kind} pixels; they must be uint8, 0 to 255. Values from 0 to 1 become that when they are "
            "multiplied by 255, rounded and converted."
        )


def read_picture(path: str | Path) -> Image.Image:
    """An image file as 8-bit RGB: upright by its EXIF tag, the first frame of an animation, alpha left out.

    Raises:
        UnreadableImage: missing, empty, truncated, no image, or above PIL's limit against decompression bombs.
    """
    try:
        with Image.open(path) as picture:
            if _is_deep(picture):
                return _pil_as_rgb(picture)
        return read_image(str(path))
    except FileNotFoundError as error:
        raise UnreadableImage(f"{path}: no such image file.") from error
    except UnreadableImage:
        raise
    except Exception as error:  # decoders of damaged files raise whatever comes along
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"{path} cannot be read as an image ({reason}).") from error


def _is_deep(picture: Image.Image) -> bool:
    """Whether it has more than 8 bits a pixel in one channel."""
    return picture.mode.startswith("I") or picture.mode == "F"


def _pil_as_rgb(picture: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    if _is_deep(picture):  # PIL clips these at 255
        pixels = np.nan_to_num(np.asarray(picture, dtype=np.float32))
        highest = float(pixels.max())
        scale = 1.0 if picture.mode == "F" and highest > 1 else 255.0
        if picture.mode != "F":
            scale = 1.0 if picture.mode == "I" and highest <= 255 else 255.0 / max(65535.0, highest)
        return Image.fromarray((pixels * scale).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def as_batch(pixels: list[np.ndarray], size: tuple[int, int]) -> Tensor:
    """Pictures uint8 [h, w, 3] as uint8 [B, 3, h, w]; the layout in memory stays channels last."""
    if not pixels:
        return torch.zeros((0, 3, *size), dtype=torch.uint8)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
