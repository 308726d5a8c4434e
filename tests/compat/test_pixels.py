"""Images into tensors, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.compat.pixels import read_image, to_tensor


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "1", "I;16", "LA"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    base = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 4, 3), dtype=np.uint8))
    image = Image.new("I;16", (4, 6), 300) if mode == "I;16" else base.convert(mode)
    path = tmp_path / ("image.tif" if mode in ("CMYK", "I;16") else "image.png")
    image.save(path)
    loaded = read_image(str(path))
    assert loaded.mode == "RGB" and loaded.size == (4, 6)


def test_tensor_is_the_picture(tmp_path: Path) -> None:
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    tensor = to_tensor(Image.fromarray(pixels))
    assert tensor.dtype == torch.float32 and tensor.shape == (3, 6, 4)
    assert torch.equal(tensor, torch.from_numpy(pixels).permute(2, 0, 1).float())
    assert to_tensor(Image.fromarray(pixels[:, :, 0])).shape == (1, 6, 4)
    assert to_tensor(Image.new("1", (2, 2), 1)).unique().tolist() == [255.0]


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "0001_c1.jpg"
    if content is None:
        Image.new("RGB", (64, 128), (9, 99, 199)).save(path)
        content = path.read_bytes()[:-200]
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="0001_c1.jpg"):
        read_image(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="gone.jpg: no such image file"):
        read_image(str(tmp_path / "gone.jpg"))
