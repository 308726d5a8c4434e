from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from fastreid_clip3d.common.images import read_image
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher import ImageTransform, preprocess
from fastreid_clip3d.teacher.preprocess import normalize


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(224, 224), (128, 64)])
@pytest.mark.parametrize("shape", [(256, 128), (60, 37), (500, 300)])
def test_squash_is_open_clips_own_transform(size, shape):
    settings = PreprocessCfg(size=size, resize_mode="squash")
    image = noise(*shape)
    own = ImageTransform(size, settings.mean, settings.std, settings.interpolation)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (settings.mean, settings.std))
    expected = image_transform_v2(settings, is_train=False)(image)
    torch.testing.assert_close(normalize(own(image)[None], mean, std)[0], expected, atol=1e-5, rtol=0)


def test_it_is_antialiased():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 64))).convert(
        "RGB"
    )  # 1-pixel stripes, 64 x 128
    small = ImageTransform((16, 16), (0.5,) * 3, (0.5,) * 3)(stripes)
    assert (small.float() - 127.5).abs().max() < 12


def test_pad_keeps_the_shape_and_fills_with_the_mean():
    image = Image.new("RGB", (40, 80), (255, 0, 0))
    padded = ImageTransform((80, 80), (0.2, 0.4, 0.6), (1, 1, 1), resize="pad")(image)
    assert padded[:, :, 20:60].reshape(3, -1).unique(dim=1).tolist() == [[255], [0], [0]]
    assert padded[:, 40, 5].tolist() == [51, 102, 153] and padded[:, 40, 75].tolist() == [51, 102, 153]


def test_it_gives_bytes_and_survives_a_worker_process():
    transform = pickle.loads(pickle.dumps(ImageTransform((32, 32), (0.5,) * 3, (0.5,) * 3)))
    out = transform(noise(50, 20))
    assert out.dtype == torch.uint8 and out.shape == (3, 32, 32)


def test_padding_of_a_very_narrow_image_is_refused_before_it_takes_memory(monkeypatch):
    pad = ImageTransform((16, 16), (0.5,) * 3, (0.5,) * 3, resize="pad")
    for size, shown in (((1, 65000), "65000 x 1 pixels"), ((65000, 1), "1 x 65000 pixels")):
        with pytest.raises(ClearError, match=f"{shown}.* 65000 x 65000 .*RESIZE to squash"):
            pad(Image.new("RGB", size))
    assert ImageTransform((16, 16), (0.5,) * 3, (0.5,) * 3)(Image.new("RGB", (1, 65000))).shape == (3, 16, 16)
    assert pad(Image.new("RGB", (1, 2000))).shape == (3, 16, 16)
    monkeypatch.setattr(preprocess, "MAX_PADDED_PIXELS", 1)  # an ordinary image of any size is padded
    assert pad(Image.new("RGB", (64, 128))).shape == (3, 16, 16)


def test_an_unknown_resize_names_the_known():
    with pytest.raises(ClearError, match="squash, pad"):
        ImageTransform((32, 32), (0.5,) * 3, (0.5,) * 3, resize="crop")


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_becomes_rgb(mode, tmp_path):
    flat = Image.new("RGB", (20, 30), (255, 255, 255)).convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    flat.save(path)
    read = read_image(path)
    assert read.mode == "RGB" and read.size == (20, 30)
    assert np.asarray(read).min() >= 250  # white stays white in every mode


def test_a_truncated_and_an_empty_image_are_named(tmp_path):
    path = tmp_path / "cut.jpg"
    noise(64, 32).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ClearError, match="cut.jpg"):
        read_image(path)
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(ClearError, match="empty.jpg: empty file"):
        read_image(empty)
    with pytest.raises(ClearError, match="gone.jpg"):
        read_image(tmp_path / "gone.jpg")
