"""The one reader of images: from a file, bytes, a PIL image, an array or a tensor to an upright 8-bit RGB image.

Training, the teacher, the dataset check and all verbs read with it, so they accept the same files and see the same
pixels. H, W: height and width of an image in pixels.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from fastreid_clip3d.common.files import check_writable, write_atomically
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError

AnyImage = str | Path | Image.Image | np.ndarray | Tensor
Channels = Literal["RGB", "BGR"]
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
"""Endings of the images that we write."""
CHANNELS: tuple[Channels, ...] = ("RGB", "BGR")

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnreadableImage(ClearError):
    """An image that is missing, no regular file, empty, truncated, too large to decode, or no image at all.

    Attributes:
        reason: the message without the file's name.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


def read_image(path: str | Path) -> Image.Image:
    """An image file as 8-bit RGB, see :func:`to_rgb` and :func:`load_image`.

    Raises:
        UnreadableImage: names the file and what is wrong with it.
    """
    return _converted(load_image(path), path)


def decode_image(data: bytes, name: str | Path) -> Image.Image:
    """As :func:`read_image`, for the content of a file; errors call it `name`."""
    if not data:
        raise _unreadable(name, "empty file (0 bytes)")
    return _converted(_load(io.BytesIO(data), name), name)


def load_image(path: str | Path) -> Image.Image:
    """An image file in its own mode, decoded to its last byte and turned upright by its EXIF tag.

    The first frame of an animation. Only regular files are opened, so a FIFO or a device cannot block the caller.

    Raises:
        UnreadableImage: names the file and what is wrong with it.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        is_link = os.path.islink(path)
        raise _unreadable(path, "a link to a missing file" if is_link else "no such image file") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, f"cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "no file")
        raise _unreadable(path, f"{kind}, not an image file")
    if not status.st_size:
        raise _unreadable(path, "empty file (0 bytes)")
    return _load(path, path)


def to_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as 8-bit RGB; alpha is left out, as fast-reid does.

    More than 8 bits per pixel are scaled, where PIL would clip them: 16-bit values by 255 / 65535, float values up to 1
    by 255. 32-bit integers up to 255 and floats above 1 are taken as 0..255.
    """
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image if image.mode == "RGB" else image.convert("RGB")
    pixels = np.nan_to_num(np.asarray(image, dtype=np.float32))
    highest = float(pixels.max(initial=0.0))
    if image.mode == "F":
        scale = 1.0 if highest > 1 else 255.0
    else:
        scale = 1.0 if image.mode == "I" and highest <= 255 else 255.0 / max(65535.0, highest)
    return Image.fromarray((pixels * scale).round().clip(0, 255).astype(np.uint8)).convert("RGB")


def as_rgb(image: AnyImage, channels: Channels = "RGB", where: str = "the image") -> Image.Image:
    """An image of any kind, in its own size, as 8-bit RGB.

    Args:
        image: a path; a PIL image of any mode; a uint8 array [H, W, 3] or [H, W]; a uint8 tensor [3, H, W].
        channels: order of the colours in arrays and tensors; files and PIL images know their own.
        where: how an error calls this image.

    Raises:
        UnreadableImage: a file that cannot be read. ClearError: pixels of another type or shape, or none at all.
    """
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise ClearError(f"{where} has no area: its size is {image.width} x {image.height}.")
        return to_rgb(ImageOps.exif_transpose(image))
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ClearError(f"{where} is a tensor of shape {tuple(image.shape)}; an image is [3, H, W].")
        _check_dtype(str(image.dtype).removeprefix("torch."), where)
        image = image.detach().cpu().permute(1, 2, 0).numpy()
    if not isinstance(image, np.ndarray):
        raise ClearError(
            f"{where} is a {type(image).__name__}; it must be a path, a PIL image, a uint8 array [H, W, 3] or a "
            "uint8 tensor [3, H, W]."
        )
    return _array_as_rgb(image, channels, where)


def check_channels(channels: str) -> None:
    """Refuses any order of colours but RGB and BGR.

    Raises:
        ClearError: names both.
    """
    if channels not in CHANNELS:
        raise ClearError(f'channels={channels!r} is unknown; choose "RGB" (PIL, torchvision) or "BGR" (OpenCV).')


def save_image(image: Image.Image, path: str | Path, quality: int = 85) -> Path:
    """Writes an image, whole or not at all, in the format of the path's ending; returns the path.

    Raises:
        ClearError: an ending that is not in :data:`IMAGE_ENDINGS`, or the file cannot be written.
    """
    path = check_writable(path, IMAGE_ENDINGS)
    kind = {"jpg": "jpeg"}.get(path.suffix[1:].lower(), path.suffix[1:].lower())
    write_atomically(path, lambda stream: image.save(stream, kind, quality=quality))
    return path


def _unreadable(name: str | Path, reason: str) -> UnreadableImage:
    return UnreadableImage(f"{printable(str(name))}: {reason}. Replace it or leave it out.", reason)


def _load(source: str | Path | io.BytesIO, name: str | Path) -> Image.Image:
    try:
        with Image.open(source) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ... on damaged files
        raise _undecodable(name, error) from error


def _converted(image: Image.Image, name: str | Path) -> Image.Image:
    try:
        return to_rgb(image)
    except Exception as error:  # a damaged palette or colour profile is noticed only here
        raise _undecodable(name, error) from error


def _undecodable(name: str | Path, error: Exception) -> UnreadableImage:
    reason = " ".join(str(error).replace(f" {str(name)!r}", "").split()) or type(error).__name__
    return _unreadable(name, f"cannot be read as an image ({reason})")


def _array_as_rgb(array: np.ndarray, channels: Channels, where: str) -> Image.Image:
    _check_dtype(str(array.dtype), where)
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


def _check_dtype(dtype: str, where: str) -> None:
    if dtype != "uint8":
        raise ClearError(
            f"{where} has {dtype} pixels; they must be uint8, 0 to 255. Values from 0 to 1 become that when they are "
            "multiplied by 255, rounded and converted."
        )
