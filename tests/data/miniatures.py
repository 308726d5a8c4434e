"""Datasets of a few 4 x 8 images in the documented layouts, with the strays that real copies have."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def tiny_image(file_format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 8), (90, 60, 30)).save(buffer, file_format)
    return buffer.getvalue()


JPEG, PNG = tiny_image("JPEG"), tiny_image("PNG")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


def put_images(folder: Path, *names: str) -> None:
    """Writes images of these names, in the given order, so that file-system order is not sorted order."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG if name.lower().endswith(".png") else JPEG)


def put_strays(folder: Path) -> None:
    """What operating systems leave behind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / ".DS_Store").write_bytes(b"\0\0")
    (folder / "._1_1_1.jpg").write_bytes(b"\0\x05\x16\x07")


def celeb(root: Path, folder: str = "Celeb-reID") -> Path:
    """Person 7 is in query only, person 9 in gallery only; -1 is junk; 2, 4 to 6 and 8 are gaps."""
    base = root / folder
    put_images(base / "train", "10_2_0.jpg", "2_1_0.jpg", "1_12_0.jpg", "1_3_1.JPG", "-1_4_0.jpg")
    put_images(base / "query", "3_1_0.jpg", "7_2_0.jpg", "1_15_0.jpg")
    put_images(base / "gallery", "9_1_0.jpg", "3_12_0.jpg", "3_2_0.jpeg", "1_1_0.jpg")
    for split in ("train", "query", "gallery"):
        put_strays(base / split)
    (base / "gallery" / "3_9_9.jpg").mkdir()  # a folder where an image could be
    return base


def ltcc(root: Path) -> Path:
    base = root / "LTCC_ReID"
    put_images(base / "train", "004_2_c11_015859.png", "004_1_c2_000001.png", "000_1_c1_000002.png")
    put_images(base / "query", "003_1_c1_000010.png", "012_1_c3_000011.png")
    put_images(
        base / "test", "003_2_c12_000020.PNG", "003_1_c1_000021.png", "012_1_c4_000022.png", "-1_1_c1_000023.png"
    )
    put_strays(base / "test")
    (base / "info").mkdir()
    (base / "info" / "cloth-change_id_test.txt").write_bytes(b"\r\n3\r\n\r\n")
    return base


def prcc(root: Path) -> Path:
    base = root / "prcc" / "rgb"
    put_images(base / "train", "005/C_cropped_rgb9.jpg", "005/A_cropped_rgb1.jpg", "002/B_cropped_rgb1.jpg")
    put_images(base / "test", "A/070/cropped_rgb1.jpg", "A/074/cropped_rgb1.jpg", "B/070/cropped_rgb2.JPG")
    put_images(base / "test", "C/070/cropped_rgb3.jpg", "C/080/cropped_rgb4.jpg")
    put_strays(base / "train")
    put_strays(base / "train" / "005")
    return base


def ccvid(root: Path) -> Path:
    base = root / "CCVID"
    for tracklet in ("session1/001_01", "session1/001_02", "session2/010_03", "session3/001_01", "session3/010_05"):
        put_images(base / tracklet, "00002.jpg", "00010.jpg", "00001.jpg")
        put_strays(base / tracklet)
    (base / "train.txt").write_text("session2/010_03\t010\tu0_l0_s0\nsession3/010_05\t010\tu1_l0_s0\n")
    (base / "query.txt").write_bytes(b"\xef\xbb\xbfsession1/001_01\t001\tu0_l0_s0\r\n\r\n")
    (base / "gallery.txt").write_text("session3/001_01 001 u9_l9_s9\n\n  session1/001_02   001  u0_l0_s0\n")
    return base


def deepchange(root: Path) -> Path:
    base = root / "DeepChangeDataset"
    lists = {
        "train-set": [("P20_C5_20200101_1.jpg", 4), ("P3_C1_20191207_000_1.jpg", 77)],
        "test-set-query": [("P8_C2_20200102_2.jpg", 12)],
        "test-set-gallery": [("P8_C2_20200102_3.JPG", 13), ("P8_C3_20200305_1.jpg", 5), ("P9_C3_20200102_1.jpg", 12)],
    }
    for folder, entries in lists.items():
        put_images(base / folder, *(name for name, _ in entries))
        put_strays(base / folder)
        text = "\r\n".join(f"{name},{tracklet}" for name, tracklet in entries)
        (base / f"{folder}-bbox.txt").write_bytes(text.encode() + b"\r\n\r\n")
    return base


def vc_clothes(root: Path) -> Path:
    base = root / "VC-Clothes"
    put_images(base / "train", "0010-04-03-02.jpg", "0002-01-01-00.jpg")
    put_images(base / "query", "0001-03-01-00.jpg", "0001-02-01-00.jpg")
    put_images(base / "gallery", "0001-04-02-00.jpg", "0001-03-01-05.jpg", "0005-01-01-00.jpg")
    put_strays(base / "query")
    return base


def last(root: Path) -> Path:
    base = root / "last"
    put_images(
        base / "train", "000003/000003_film_02_0.jpg", "000001/000001_film_01_5.jpg", "000003/000003_film_01_1.jpg"
    )
    put_images(base / "test" / "query", "000002_0_0_0.jpg")
    put_images(base / "test" / "gallery", "000002/000002_0_1_0.jpg", "000007/000007_0_0_0.jpg")
    put_strays(base / "train")
    put_strays(base / "test" / "gallery")
    return base


def csv(path: Path, text: str | None = None) -> Path:
    """A CSV with its images beside it."""
    put_images(path.parent / "images", "a.jpg", "b.jpg", "c.JPG", "d.jpg")
    lines = ["path,pid,camid,clothes,split", "images/a.jpg,4,1,red,train", "images/b.jpg,4,-1,red,query", "",
             "images/c.JPG,4,2,blue,gallery", "images/d.jpg,6,2,blue,gallery"]  # fmt: skip
    path.write_text("\r\n".join(lines) if text is None else text, encoding="utf-8")
    return path
