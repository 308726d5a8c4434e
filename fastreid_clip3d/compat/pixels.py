"""Images into tensors: without torch's deprecated typed storages, and with the file's name in every error."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fastreid_clip3d.errors import ClearError


class UnreadableImage(ClearError):
    """An image file that is missing, empty, truncated or no image at all."""


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
    """fast-reid's ``read_image``, with RGB for every kind of picture and an error that names the file.

    Args:
        file_name: the image's path.
        format: a PIL mode, or "BGR"; RGB by default.

    Raises:
        UnreadableImage: the file is missing, empty, truncated or no image.
    """
    from PIL import ImageOps

    try:
        with Image.open(file_name) as image:
            image = ImageOps.exif_transpose(image)
            image = image.convert("RGB" if format in (None, "BGR") else format)
    except FileNotFoundError as error:
        raise UnreadableImage(f"{file_name}: no such image file.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(
            f"{file_name} cannot be read as an image ({error}). Replace the file, or run tools/check_dataset.py to find "
            "all such files of a dataset at once."
        ) from error
    if format == "BGR":
        return Image.fromarray(np.asarray(image)[:, :, ::-1])
    return image


def apply() -> None:
    """Puts both functions where fast-reid looks them up."""
    import fastreid.data.common as common
    import fastreid.data.data_utils as data_utils
    import fastreid.data.transforms.functional as functional
    import fastreid.data.transforms.transforms as transforms

    functional.to_tensor = to_tensor
    if hasattr(transforms, "to_tensor"):
        transforms.to_tensor = to_tensor
    data_utils.read_image = read_image
    common.read_image = read_image


