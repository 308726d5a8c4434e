"""The way of a picture into the student is fast-reid's own, for every mode that PIL knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastreid.data.transforms import build_transforms
from PIL import Image

from fastreid_clip3d import get_cfg
from fastreid_clip3d.common.images import UnreadableImage, as_rgb, read_image
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.preprocess import InputSize, as_batch
from tests.inference.conftest import picture


def config(size, crop=None):
    cfg = get_cfg()
    cfg.INPUT.SIZE_TEST = size
    cfg.INPUT.CROP.ENABLED = crop is not None
    cfg.INPUT.CROP.SIZE = crop or [8, 8]
    return cfg


@pytest.mark.parametrize(
    "size, crop, input_size",
    [([64, 32], None, (64, 32)), ([50], [40, 20], (40, 20)), ([64, 48], [40], (40, 40)), ([0], [30, 70], (30, 70))],
)
def test_it_is_fastreids_test_transform(size, crop, input_size) -> None:
    cfg = config(size, crop)
    recipe, transform = InputSize.from_config(cfg), build_transforms(cfg, is_train=False)
    assert recipe.size == input_size
    sizes = [(80, 40), (33, 91), (1, 1), (64, 32)]
    pictures = [picture(seed, *size) for seed, size in enumerate(sizes)]
    expected = torch.stack([transform(item) for item in pictures])
    found = as_batch([recipe.apply(item) for item in pictures], recipe.size)
    assert found.dtype == torch.uint8 and torch.equal(found.float(), expected)


def test_a_config_that_leaves_sizes_open_is_refused() -> None:
    with pytest.raises(ClearError, match="SIZE_TEST is .256.*set it to"):
        InputSize.from_config(config([256]))


def test_deep_grey_pictures_are_scaled_not_clipped(tmp_path) -> None:
    grey = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "unit.tif")
    Image.fromarray(grey.astype(np.int32) * 257).save(tmp_path / "integers.tif")
    for name in ("deep.png", "unit.tif", "integers.tif"):
        found = np.asarray(read_image(tmp_path / name))
        assert found.shape == (16, 16, 3) and np.array_equal(found[:, :, 1], grey), name


def test_pictures_are_turned_upright(tmp_path) -> None:
    upright = picture(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    expected = np.asarray(upright)
    assert np.array_equal(np.asarray(read_image(tmp_path / "turned.png")), expected)
    with Image.open(tmp_path / "turned.png") as opened:
        assert np.array_equal(np.asarray(as_rgb(opened)), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16", "PA"])
def test_every_mode_becomes_rgb(mode) -> None:
    found = as_rgb(Image.new(mode, (4, 6)))
    assert found.mode == "RGB" and found.size == (4, 6)


def test_decoders_that_fail_in_their_own_ways_name_the_file(tmp_path, monkeypatch) -> None:
    picture(1).save(tmp_path / "p.png")

    def fail(*_, **__):
        raise IndexError("in the middle of a chunk")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(UnreadableImage, match="p.png: cannot be read as an image .in the middle"):
        read_image(tmp_path / "p.png")
