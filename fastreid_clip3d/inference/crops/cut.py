"""Cuts people out of footage into folders that search, extract and make-csv take."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from fastreid_clip3d.common.files import check_writable_folder, write_atomically
from fastreid_clip3d.common.names import as_utf8, printable
from fastreid_clip3d.data.folder_layouts import CROPS_FILE
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.boxes import whole_pixels
from fastreid_clip3d.inference.crops.box_files import Box, BoxFile
from fastreid_clip3d.inference.crops.detectors import Detector
from fastreid_clip3d.inference.crops.frames import Footage, Frame

COLUMNS = ("file", "track", "frame", "x1", "y1", "x2", "y2", "score")
UNTRACKED = "untracked"
JPEG_QUALITY = 95

BoxesOf = Callable[[Frame], "list[Box]"]


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


def check_new_folder(output: str | Path) -> Path:
    """The folder of the crops, which is missing or empty.

    Raises:
        ClearError: it holds files already, or cannot be written.
    """
    folder = check_writable_folder(output, "--output")
    if folder.exists() and any(folder.iterdir()):
        raise ClearError(
            f"{printable(str(folder))} holds files already. Crops of two runs would mix: choose another --output, or "
            "remove it."
        )
    return folder


def boxes_from_file(file: BoxFile, footage: Footage) -> BoxesOf:
    """The boxes of each frame, by its number or by the photo's name.

    Raises:
        ClearError: the file names a photo that is not there.
    """
    names = {path.name for path in footage.paths}
    strangers = [key for key in file.boxes if isinstance(key, str) and (footage.is_video or key not in names)]
    if strangers:
        kind = "a video, whose frames have numbers" if footage.is_video else "photos, none of which has this name"
        raise ClearError(
            f"{printable(str(file.path))} has boxes of {printable(strangers[0])!r}, and {printable(footage.name)} is "
            f"{kind}."
        )
    return lambda frame: [*file.boxes.get(frame.number, ()), *file.boxes.get(frame.name, ())]


def boxes_of_detector(detector: Detector) -> BoxesOf:
    """The boxes that a detector finds in a frame."""
    return lambda frame: detector(frame.pixels)


def boxes_behind_the_end(file: BoxFile, footage: Footage) -> str:
    """The remark that a file has boxes of frames behind the last one that was read; "" where it has none."""
    behind = [len(boxes) for key, boxes in file.boxes.items() if isinstance(key, int) and key > footage.last]
    if not behind:
        return ""
    return (
        f"{sum(behind)} boxes of {printable(str(file.path))}: they are of frames behind frame {footage.last}, the last "
        f"one of {printable(footage.name)}"
    )


def cut_crops(
    work: Sequence[tuple[Footage, BoxesOf]],
    output: str | Path,
    settings: CropSettings = CropSettings(),
    tracks_wanted: bool = True,
    progress: bool = False,
) -> CropReport:
    """Writes ``OUTPUT/TRACK/FRAME.jpg``, and ``OUTPUT/SOURCE/TRACK/FRAME.jpg`` for several sources, and ``crops.csv``.

    Boxes of a photo without tracks become ``OUTPUT/PHOTO/NUMBER.jpg``. Of a video they become
    ``OUTPUT/untracked/FRAME_NUMBER.jpg``, unless tracks are wanted; then boxes without one are left out.

    Args:
        work: footage, each with the boxes of its frames. output: a folder that is missing or empty.
        tracks_wanted: leave out a video's boxes that belong to no track.

    Raises:
        ClearError: as in :func:`check_new_folder`, or a video that cannot be read.
    """
    folder = check_new_folder(output)
    report = CropReport(folder)
    rows: list[tuple[object, ...]] = []
    for footage, boxes_of in work:
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
            for name, box, corners in _kept(boxes_of(frame), frame, footage, settings, tracks_wanted, report):
                track = f"{prefix}{box.track}" if box.track else ""
                path = f"{prefix}{name}"
                _write_crop(folder / path, frame.pixels, corners)
                rows.append(
                    (path, track, frame.number if footage.is_video else frame.name, *corners, f"{box.score:.4f}")
                )
                report.crops += 1
                if track:
                    report.tracks[track] += 1
        report.unreadable += footage.unreadable
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_atomically(folder / CROPS_FILE, text.getvalue().encode("utf-8", "surrogateescape"))
    return report


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
            name = f"{frame_name}_{Path(frame.name).stem}/{number}.jpg"
        (corners,) = whole_pixels(np.array([box[:4]]), height, width, settings.margin).tolist()
        yield name, box, corners


def _write_crop(path: Path, pixels: np.ndarray, corners: list[int]) -> None:
    left, top, right, bottom = corners
    crop = np.ascontiguousarray(pixels[top:bottom, left:right])
    written, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not written:
        raise ClearError(
            f"{printable(str(path))}: OpenCV cannot encode a crop of {right - left} x {bottom - top} pixels."
        )
    write_atomically(path, data.tobytes(), durable=False)
