"""Cuts people out of footage into folders that search, extract and make-csv take."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from fastreid_clip3d.common.files import check_writable_folder, remove_leftovers, write_atomically
from fastreid_clip3d.common.locks import lock_folder
from fastreid_clip3d.common.names import as_utf8, printable
from fastreid_clip3d.data.folder_layouts import CROPS_FILE
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.boxes import whole_pixels
from fastreid_clip3d.inference.crops.box_files import Box
from fastreid_clip3d.inference.crops.box_sources import BoxSource
from fastreid_clip3d.inference.crops.frames import Footage, Frame
from fastreid_clip3d.inference.crops.progress import FoundBoxes
from fastreid_clip3d.inference.pictures import signature_of

COLUMNS = ("file", "track", "frame", "x1", "y1", "x2", "y2", "score")
UNTRACKED = "untracked"
JPEG_QUALITY = 95
_LONGEST_NAME = 255  # bytes


@dataclass(frozen=True)
class CropSettings:
    """Which boxes become crops.

    Attributes:
        min_score: 0..1. margin: share of its size by which a box grows on each side.
        min_height, min_width: of a box in pixels, inside the frame and before it grows.
        every: take each n-th frame.
    """

    min_score: float = 0.5
    margin: float = 0.0
    min_height: int = 48
    min_width: int = 16
    every: int = 1

    def __post_init__(self) -> None:
        for name, value in (("min-score", self.min_score), ("margin", self.margin)):
            if not 0 <= value <= 1:
                raise ClearError(f"--{name} is {value}; it must be from 0 to 1.")


@dataclass
class CropReport:
    """What was cut: numbers of frames and crops, crops by track, boxes left out by reason, what could not be read."""

    output: Path
    frames: int = 0
    crops: int = 0
    tracks: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        """The summary, several lines."""
        tracks = f" of {len(self.tracks)} tracks" if self.tracks else ""
        lines = [f"{self.crops} crops{tracks} from {self.frames} frames."]
        lines += [f"left out, {count} boxes: {reason}" for reason, count in self.left_out.items()]
        lines += [f"not read: {as_utf8(what)}" for what in self.unreadable]
        lines.append(f"Written to {printable(str(self.output))}, with the boxes in {CROPS_FILE}.")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same for json."""
        return {
            "output": str(self.output),
            "frames": self.frames,
            "crops": self.crops,
            "tracks": dict(self.tracks),
            "left_out": dict(self.left_out),
            "unreadable": self.unreadable,
        }


def cut_crops(
    work: Sequence[tuple[Footage, BoxSource]],
    output: str | Path,
    settings: CropSettings = CropSettings(),
    tracks_wanted: bool = True,
    progress: bool = False,
) -> CropReport:
    """Writes ``OUTPUT/TRACK/FRAME.jpg``, and ``OUTPUT/SOURCE/TRACK/FRAME.jpg`` for several sources, and ``crops.csv``.

    Boxes of a photo without tracks become ``OUTPUT/PHOTO/NUMBER.jpg``. Of a video they become
    ``OUTPUT/untracked/FRAME_NUMBER.jpg``, unless tracks are wanted; then boxes without one are left out.

    After a kill the same call goes on, and the folder ends as without the kill.

    Args:
        work: footage, each with the boxes of its frames.
        output: a folder that is missing, empty or was begun by the same call.
        tracks_wanted: leave out a video's boxes that belong to no track.

    Raises:
        ClearError: the folder has other contents, was begun with other settings or cannot be written; a video that
            cannot be read.
    """
    folder = check_writable_folder(output, "--output")
    footage = {
        printable(one.name): {
            "signature": signature_of((path.name, path) for path in one.paths),
            "boxes": dict(source.about),
        }
        for one, source in work
    }
    decisive = {"footage": footage, "settings": asdict(settings), "tracks_wanted": tracks_wanted}
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder), closing(FoundBoxes(folder, decisive)) as found:
        return _cut(work, folder, settings, tracks_wanted, progress, found)


def _cut(
    work: Sequence[tuple[Footage, BoxSource]],
    folder: Path,
    settings: CropSettings,
    tracks_wanted: bool,
    progress: bool,
    found: FoundBoxes,
) -> CropReport:
    report = CropReport(folder)
    rows: list[tuple[object, ...]] = []
    for footage, source in work:
        prefix = f"{footage.name}/" if len(work) > 1 else ""
        bar = tqdm(
            footage.frames(settings.every),
            total=footage.count(settings.every) or None,
            desc=as_utf8(footage.name),
            unit="frame",
            disable=not progress,
        )
        for frame in bar:
            report.frames += 1
            boxes = source.join(_found_boxes(footage, source, frame, found))
            for name, box, corners in _kept(boxes, frame, footage, settings, tracks_wanted, report):
                track = f"{prefix}{box.track}" if box.track else ""
                path = f"{prefix}{name}"
                if not _has_content(folder / path):
                    _write_crop(folder / path, frame.pixels, corners)
                rows.append(
                    (path, track, frame.number if footage.is_video else frame.name, *corners, f"{box.score:.4f}")
                )
                report.crops += 1
                if track:
                    report.tracks[track] += 1
        report.unreadable += footage.unreadable
    for parent in {folder, *((folder / str(row[0])).parent for row in rows)}:
        remove_leftovers(parent)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_atomically(folder / CROPS_FILE, text.getvalue().encode("utf-8", "surrogateescape"))
    return report


def _found_boxes(footage: Footage, source: BoxSource, frame: Frame, found: FoundBoxes) -> list[Box]:
    known = found.get(footage.name, frame.number)
    if known is not None and not source.has_memory:
        return known
    boxes = source.find(frame)
    if known is None:
        found.add(footage.name, frame.number, boxes)
    return boxes if known is None else known


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _kept(
    boxes: list[Box], frame: Frame, footage: Footage, settings: CropSettings, tracks_wanted: bool, report: CropReport
) -> Iterator[tuple[str, Box, list[int]]]:
    """The boxes that become crops: file name, box, corners in whole pixels."""
    height, width = frame.pixels.shape[:2]
    drawn: set[str] = set()
    for number, box in enumerate(boxes):
        visible_width = min(box.x2, width) - max(box.x1, 0)
        visible_height = min(box.y2, height) - max(box.y1, 0)
        reason = ""
        if box.score < settings.min_score:
            reason = f"score below {settings.min_score:g}"
        elif visible_height <= 0 or visible_width <= 0:
            reason = "outside the frame"
        elif visible_height < settings.min_height or visible_width < settings.min_width:
            reason = f"smaller than {settings.min_height} x {settings.min_width} pixels"
        elif footage.is_video and tracks_wanted and not box.track:
            reason = "in no track"
        elif box.track and box.track in drawn:
            reason = "a second box of its track in the same frame"
        if reason:
            report.left_out[reason] += 1
            continue
        drawn.add(box.track)
        frame_name = f"{frame.number:06}"
        if box.track:
            name = f"{box.track}/{frame_name}.jpg"
        elif footage.is_video:
            name = f"{UNTRACKED}/{frame_name}_{number}.jpg"
        else:
            name = f"{_shortened(f'{frame_name}_{Path(frame.name).stem}')}/{number}.jpg"
        (corners,) = whole_pixels(np.array([box[:4]]), height, width, settings.margin).tolist()
        yield name, box, corners


def _shortened(folder: str) -> str:
    """A folder's name cut to what every file system takes; the number before a photo's name still tells it apart."""
    while len(os.fsencode(folder)) > _LONGEST_NAME:
        folder = folder[:-1]
    return folder


def _write_crop(path: Path, pixels: np.ndarray, corners: list[int]) -> None:
    left, top, right, bottom = corners
    crop = np.ascontiguousarray(pixels[top:bottom, left:right])
    written, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not written:
        raise ClearError(
            f"{printable(str(path))}: OpenCV cannot encode a crop of {right - left} x {bottom - top} pixels."
        )
    write_atomically(path, data.tobytes(), durable=False)
