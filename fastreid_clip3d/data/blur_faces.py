"""Makes a copy of a dataset's folder with blurred faces: same folders, same names, the source untouched.

The copy has every image with its faces blurred, or byte for byte where the detector found none. It has text lists, and
two files from which an interrupted run continues: ``blur_faces.json`` (the settings) and ``blur_faces.csv`` (one line
per image: name, number of faces). We leave out and count all other files: a Thumbs.db holds small pictures of faces.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin
from tqdm import tqdm

from fastreid_clip3d.common.files import check_writable_folder, write_atomically
from fastreid_clip3d.common.images import UnreadableImage, load_image, to_rgb
from fastreid_clip3d.common.locks import lock_folder
from fastreid_clip3d.common.names import as_utf8, printable
from fastreid_clip3d.common.resumable import Journal, begin
from fastreid_clip3d.data.datasets.listing import IMAGE_ENDINGS, files_below, first_few
from fastreid_clip3d.data.face_detector import Face
from fastreid_clip3d.errors import ClearError

LIST_ENDINGS = (".txt", ".csv")
SETTINGS_FILE, LOG_FILE = "blur_faces.json", "blur_faces.csv"
LOG_COLUMNS = ("image", "faces")

Detector = Callable[[np.ndarray], Sequence[Face]]


@dataclass(frozen=True)
class BlurSettings:
    """The settings of the blur.

    Attributes:
        threshold: the detector's, 0..1. margin: share of its size by which a box is enlarged on each side.
        strength: standard deviation of the Gaussian, as a share of the longer side of the original box.
    """

    threshold: float = 0.3
    margin: float = 0.15
    strength: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 2:
            raise ClearError(f"margin is {self.margin}; it must be between 0 and 2")
        if not 0.05 <= self.strength <= 2:
            raise ClearError(f"strength is {self.strength}; it must be between 0.05 (faces stay visible) and 2")


@dataclass
class BlurReport:
    """The content of the copy after a run; paths are relative to the source.

    Attributes:
        faces: image -> number of faces, of this run and of earlier ones. done_before: number of images of earlier runs.
        unreadable: image -> reason; these are not in the copy. left_out: files that are neither images nor lists.
    """

    faces: dict[str, int] = field(default_factory=dict)
    done_before: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def without_face(self) -> list[str]:
        """Images in which no face was found."""
        return [image for image, faces in self.faces.items() if faces == 0]

    def summary(self, target: str | Path) -> str:
        """The report in a few lines."""
        lines = [
            f"{printable(str(target))}: {len(self.faces):,} images, {self.done_before:,} of them from an earlier run",
            f"{sum(self.faces.values()):,} faces blurred; no face found in {len(self.without_face):,} images, which "
            f"are copied as they are: {first_few(self.without_face)}",
        ]
        if self.unreadable:
            lines.append(
                f"{len(self.unreadable):,} unreadable images are not in the copy: {first_few([*self.unreadable])}"
            )
        if self.left_out:
            lines.append(
                f"{len(self.left_out):,} files are neither images nor lists and left out: {first_few(self.left_out)}"
            )
        return "\n".join(lines)


def blur_boxes(image: np.ndarray, faces: Sequence[Face], settings: BlurSettings = BlurSettings()) -> np.ndarray:
    """A copy of an image, uint8 [rows, columns] or [rows, columns, 3], with Gaussian blur inside the faces' boxes."""
    blurred = image.copy()
    rows, columns = image.shape[:2]
    for face in faces:
        width, height = face.right - face.left, face.bottom - face.top
        left = max(0, int(np.floor(face.left - settings.margin * width)))
        top = max(0, int(np.floor(face.top - settings.margin * height)))
        right = min(columns, int(np.ceil(face.right + settings.margin * width)))
        bottom = min(rows, int(np.ceil(face.bottom + settings.margin * height)))
        if right <= left or bottom <= top:
            continue
        deviation = max(1.0, settings.strength * max(width, height))
        region = np.ascontiguousarray(blurred[top:bottom, left:right])
        blurred[top:bottom, left:right] = cv2.GaussianBlur(region, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE)
    return blurred


def blur_folder(
    source: str | Path,
    target: str | Path,
    detector: Detector,
    settings: BlurSettings = BlurSettings(),
    progress: bool = True,
) -> BlurReport:
    """Copies ``source`` to ``target`` with blurred faces; after an interruption the same call continues.

    Args:
        source: the dataset's folder. target: a new folder, or the folder of an earlier run with the same settings.
        detector: RGB image, uint8 [rows, columns, 3] -> faces. progress: whether a bar is shown.

    Raises:
        ClearError: no such source, no image in it; the target is the source, lies in it or around it, has other
            content, or is the copy of a run with other settings.
    """
    source, target = Path(source), Path(target)
    _check_folders(source, target)
    check_writable_folder(target)
    report = BlurReport()
    images, lists = _files(source, report)
    if not images:
        raise ClearError(f"no image was found in {printable(str(source))}")
    work = {"source": as_utf8(source.resolve().name), **asdict(settings)}
    target.mkdir(parents=True, exist_ok=True)
    with lock_folder(target):
        begin(target, SETTINGS_FILE, work, own=(LOG_FILE,))
        log = Journal(target / LOG_FILE)
        if not log.lines:
            log.append(",".join(LOG_COLUMNS))
        done = {row[0]: int(row[1]) for row in csv.reader(log.lines) if len(row) == 2 and row[1].isdigit()}
        for name in lists:
            _copy(source, target, name)
        for name in tqdm(images, desc="blurring faces", unit="image", disable=not progress):
            shown = printable(name)
            if shown in done and _has_content(target / name):
                report.faces[name] = done[shown]
                report.done_before += 1
                continue
            try:
                report.faces[name] = _blur_image(source, target, name, detector, settings)
            except UnreadableImage as error:
                report.unreadable[name] = error.reason
                continue
            log.append(_row(shown, report.faces[name]))
        log.close()
    return report


def _row(*values: object) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _check_folders(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise ClearError(f"{source} is not a folder")
    real_source, real_target = source.resolve(), target.resolve()
    if real_source == real_target or real_source in real_target.parents or real_target in real_source.parents:
        raise ClearError(
            f"the copy {target} must lie neither in {source} nor around it, so that no original is overwritten"
        )


def _files(source: Path, report: BlurReport) -> tuple[list[str], list[str]]:
    """Names below the source, with forward slashes, of its images and lists; the others are noted as left out."""
    images, lists = [], []
    for name in files_below(source):
        file = name.rsplit("/", 1)[-1]
        hidden = file.startswith(".")
        if file.lower().endswith(IMAGE_ENDINGS) and not hidden:
            images.append(name)
        elif file.lower().endswith(LIST_ENDINGS) and not hidden and name != LOG_FILE and (source / name).is_file():
            lists.append(name)
        else:
            report.left_out.append(name)
    return images, lists


def _blur_image(source: Path, target: Path, name: str, detector: Detector, settings: BlurSettings) -> int:
    """Writes one image of the copy and returns its number of faces."""
    image = load_image(source / name)
    faces = detector(np.asarray(to_rgb(image)))
    if not faces:
        _copy(source, target, name)
        return 0
    options = _encoding(image)
    if image.mode not in ("L", "RGB"):
        image = to_rgb(image)
    blurred = Image.fromarray(blur_boxes(np.asarray(image), faces, settings))
    _write(target, name, lambda stream: blurred.save(stream, **options))
    return len(faces)


def _encoding(image: Image.Image) -> dict[str, Any]:
    """The encoder's options of the source, so that pixels outside the faces hardly change."""
    if image.format != "JPEG" or not isinstance(image, JpegImagePlugin.JpegImageFile):
        return {"format": image.format}
    options: dict[str, Any] = {"format": "JPEG", "qtables": image.quantization}
    sampling = JpegImagePlugin.get_sampling(image)
    return {**options, "subsampling": sampling} if sampling >= 0 else options


def _copy(source: Path, target: Path, name: str) -> None:
    with open(source / name, "rb") as original:
        _write(target, name, lambda stream: shutil.copyfileobj(original, stream))


def _write(target: Path, name: str, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file of the copy, whole or not at all; refuses a link that leads out of the copy's folder."""
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if target.resolve() not in (path.parent.resolve(), *path.parent.resolve().parents):
        raise ClearError(f"{printable(str(path.parent))} leads out of {printable(str(target))}; remove that link")
    write_atomically(path, write, durable=False)
