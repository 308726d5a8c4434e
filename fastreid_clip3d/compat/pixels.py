"""Images into tensors: without torch's deprecated typed storages, and with the file's name in every error."""

from __future__ import annotations

import os
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from PIL import Image

from fastreid_clip3d.common import images


def to_tensor(picture: Image.Image | np.ndarray) -> torch.Tensor:
    """A picture as a tensor [C, H, W]; 8-bit pictures become float in 0..255, as in fast-reid."""
    array = np.array(picture)
    if isinstance(picture, Image.Image) and picture.mode == "1":
        array = array.astype(np.uint8) * 255
    if array.ndim == 2:
        array = array[:, :, None]
    tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
    return tensor.float() if tensor.dtype == torch.uint8 else tensor


def read_image(file_name: str, format: str | None = None) -> Image.Image:
    """fast-reid's ``read_image`` on the package's own reader.

    Args:
        file_name: the image's path.
        format: a PIL mode, or "BGR"; None: RGB.

    Raises:
        UnreadableImage: names the file and what is wrong with it.
    """
    image = images.read_image(file_name)
    if format == "BGR":
        return Image.fromarray(np.asarray(image)[:, :, ::-1])
    return image if format in (None, "RGB") else image.convert(format)


def tensor_needs_old_libraries(to_tensor: Callable[[Image.Image], torch.Tensor]) -> bool:
    """Whether it fails on a torch without ``torch.ByteStorage``, or with this NumPy on a black and white picture."""
    with mock.patch("torch.ByteStorage", None, create=True):
        try:
            for mode in ("RGB", "1"):
                to_tensor(Image.new(mode, (1, 1)))
        except (AttributeError, ValueError):
            return True
    return False


def error_lacks_the_file(read_image: Callable[[str], Image.Image]) -> bool:
    """Whether the error for a truncated image does not say which file it is."""
    with mock.patch("PIL.Image.open", side_effect=OSError("image file is truncated")):
        try:
            read_image(os.devnull)
        except Exception as error:  # whatever class it has
            return os.devnull not in str(error)
    return True
