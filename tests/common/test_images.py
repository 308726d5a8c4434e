"""The one reader of images: what it refuses, and that training, teacher and inference see the same pixels."""

from __future__ import annotations

import io
import os
import pickle
import signal
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_clip3d import get_cfg
from fastreid_clip3d.common import images
from fastreid_clip3d.common.images import UnreadableImage, decode_image, load_image, read_image, save_image, to_rgb
from fastreid_clip3d.errors import ClearError


@pytest.fixture
def in_time():
    """Ends a test that hangs."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def colours(seed: int = 0, height: int = 64, width: int = 32) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def odd_images(tmp_path: Path) -> dict[str, tuple[Path, np.ndarray]]:
    """Files that readers treat differently, with the 8-bit RGB pixels [64, 32, 3] that they show."""
    rgb = colours()
    grey = rgb[:, :, 1]
    found = {}

    def put(name: str, image: Image.Image, expected: np.ndarray, **options) -> None:
        image.save(tmp_path / name, **options)
        found[name] = (tmp_path / name, expected)

    put("grey16.png", Image.fromarray(grey.astype(np.uint16) * 257), grey[:, :, None].repeat(3, 2))
    few = (rgb // 64) * 85  # 64 colours, so that a palette holds them exactly
    put("palette.png", Image.fromarray(few).quantize(256, method=Image.Quantize.FASTOCTREE, dither=0), few)
    expected = np.asarray(Image.open(tmp_path / "palette.png").convert("RGB"))
    assert np.abs(expected.astype(int) - few).max() <= 8
    found["palette.png"] = (tmp_path / "palette.png", expected)
    opaque = np.dstack([rgb, np.full((64, 32), 128, np.uint8)])
    put("alpha.png", Image.fromarray(opaque), rgb)
    cmyk = np.dstack([255 - rgb, np.zeros((64, 32), np.uint8)])
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    found["cmyk.jpg"] = (tmp_path / "cmyk.jpg", np.asarray(Image.open(tmp_path / "cmyk.jpg").convert("RGB")))
    assert np.abs(found["cmyk.jpg"][1].astype(int) - rgb).mean() < 6
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    put("turned.png", Image.fromarray(rgb).transpose(Image.Transpose.ROTATE_90), rgb, exif=exif)
    return found


def test_the_reader_gives_what_the_file_shows(odd_images) -> None:
    for name, (path, expected) in odd_images.items():
        image = read_image(path)
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), expected), name
        assert np.array_equal(np.asarray(decode_image(path.read_bytes(), path)), expected), name


def test_training_and_inference_see_the_same_bits(odd_images) -> None:
    """fast-reid's test loader, our training set, our inference, the teacher and the patched reader of fast-reid."""
    from fastreid.data import common as fastreid_common
    from fastreid.data.transforms import build_transforms

    from fastreid_clip3d.inference.preprocess import InputSize, to_pixels
    from fastreid_clip3d.teacher.listing import _Images
    from fastreid_clip3d.teacher.preprocess import ImageTransform

    cfg = get_cfg()
    cfg.INPUT.SIZE_TEST = [48, 24]
    transform = build_transforms(cfg, is_train=False)
    teacher = ImageTransform((32, 32), (0.5,) * 3, (0.5,) * 3)
    for name, (path, shown) in odd_images.items():
        expected = transform(Image.fromarray(shown))
        trained = fastreid_common.CommDataset([(str(path), 1, 1)], transform, relabel=False)[0]["images"]
        inferred = torch.from_numpy(to_pixels(path, InputSize.from_config(cfg)).copy()).permute(2, 0, 1)
        assert torch.equal(trained, expected) and torch.equal(inferred.float(), expected), name
        assert torch.equal(_Images([str(path)], teacher)[0], teacher(Image.fromarray(shown))), name


def test_the_training_set_reads_with_it(odd_images) -> None:
    from fastreid_clip3d.compat import pixels
    from fastreid_clip3d.data import build, training_set

    assert training_set.read_image is build.read_image is read_image
    for name, (path, shown) in odd_images.items():
        assert np.array_equal(np.asarray(pixels.read_image(str(path))), shown), name
        assert np.array_equal(np.asarray(pixels.read_image(str(path), "BGR")), shown[:, :, ::-1]), name


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder", "link", "loop", "empty", "missing", "nul"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, monkeypatch, in_time, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    path, message = "a.jpg", {"fifo": "a FIFO, not an image", "socket": "a socket, not", "folder": "a folder, not"}
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
    elif kind == "device":
        os.symlink("/dev/zero", path)
    elif kind == "folder":
        os.mkdir(path)
    elif kind in ("link", "loop"):
        os.symlink("gone" if kind == "link" else path, path)
    elif kind == "empty":
        Path(path).touch()
    path += "\0" if kind == "nul" else ""
    message |= {"device": "a device, not", "link": "a link to a missing file", "loop": "cannot be opened"}
    message |= {"empty": "empty file", "missing": "no such image file", "nul": "cannot be opened"}
    with pytest.raises(UnreadableImage, match=f"a.jpg.*: {message[kind]}.*Replace it or leave it out"):
        read_image(path)


@pytest.mark.parametrize("kind", ["cut", "text", "bomb", "chunk"])
def test_damaged_files_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(colours()).save(buffer, "JPEG" if kind == "cut" else "PNG")
    content = {"cut": buffer.getvalue()[:-200], "text": b"no image", "bomb": bomb(), "chunk": buffer.getvalue()}[kind]
    if kind == "chunk":
        content = content[:60] + bytes(20) + content[80:]
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(content)
    for read in (read_image, load_image, lambda path: decode_image(path.read_bytes(), path)):
        with pytest.raises(UnreadableImage, match=r"caf\\xe9.png: cannot be read as an image") as caught:
            read(path)
        assert "png" not in caught.value.reason and caught.value.reason.startswith("cannot be read")
    assert kind != "bomb" or "decompression bomb" in str(caught.value)


def test_the_error_survives_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("a.jpg: empty", "empty")))
    assert str(error) == "a.jpg: empty" and error.reason == "empty" and isinstance(error, ClearError)


def test_empty_bytes_are_refused() -> None:
    with pytest.raises(UnreadableImage, match="a.jpg: empty file"):
        decode_image(b"", "a.jpg")


def test_deep_images_are_scaled_by_their_type_alone() -> None:
    deep = Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint16))  # a dark 16-bit image stays dark
    assert np.asarray(to_rgb(deep)).max() == 1


@pytest.mark.parametrize("ending, format", [(".png", "PNG"), (".JPG", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP")])
def test_images_are_written_by_their_ending(tmp_path: Path, ending: str, format: str) -> None:
    path = save_image(Image.fromarray(colours()), tmp_path / "new" / f"a{ending}")
    with Image.open(path) as written:
        assert written.format == format and written.size == (32, 64)
    with pytest.raises(ClearError, match="ends in .xyz; it can be written as .png"):
        save_image(Image.fromarray(colours()), tmp_path / "a.xyz")


def test_as_rgb_takes_arrays_and_tensors() -> None:
    rgb = colours()
    for image in (rgb, torch.from_numpy(rgb.copy()).permute(2, 0, 1), Image.fromarray(rgb)):
        assert np.array_equal(np.asarray(images.as_rgb(image)), rgb)
    assert np.array_equal(np.asarray(images.as_rgb(rgb[:, :, ::-1], "BGR")), rgb)
    with pytest.raises(ClearError, match="the image has float32 pixels"):
        images.as_rgb(rgb.astype(np.float32))
