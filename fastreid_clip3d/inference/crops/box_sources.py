"""Where the boxes of a video's frames or of photos come from: a file, or a detector with or without a tracker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.crops.box_files import Box, BoxFile
from fastreid_clip3d.inference.crops.detectors import ByteTracked, Detector, UltralyticsDetector
from fastreid_clip3d.inference.crops.frames import Footage, Frame
from fastreid_clip3d.inference.pictures import signature_of


def _as_they_are(boxes: list[Box]) -> list[Box]:
    return boxes


@dataclass(frozen=True)
class BoxSource:
    """The boxes of one footage.

    Attributes:
        find: the boxes of a frame. :func:`~fastreid_clip3d.inference.crops.cut.cut_crops` keeps them, so that the next
            run after a kill need not find them again.
        join: gives the boxes of a frame their tracks; it is called with every frame in order.
        has_memory: whether `find` needs every frame in order, so that it is called again for frames that are done.
        about: what decides the boxes, as json takes it.
    """

    find: Callable[[Frame], list[Box]]
    join: Callable[[list[Box]], list[Box]] = _as_they_are
    has_memory: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)


def boxes_from_file(file: BoxFile, footage: Footage) -> BoxSource:
    """The boxes of each frame, by its number or by the photo's name.

    Raises:
        ClearError: the file names a photo that is not there, or by a name that several photos have.
    """
    names = Counter(path.name for path in footage.paths)
    strangers = [key for key in file.boxes if isinstance(key, str) and (footage.is_video or key not in names)]
    if strangers:
        kind = "a video, whose frames have numbers" if footage.is_video else "photos, none of which has this name"
        raise ClearError(
            f"{printable(str(file.path))} has boxes of {printable(strangers[0])!r}, and {printable(footage.name)} is "
            f"{kind}."
        )
    for key in file.boxes:
        if isinstance(key, str) and names[key] > 1:
            raise ClearError(
                f"{printable(str(file.path))} has boxes of {printable(key)!r}, and {names[key]} photos of "
                f"{printable(footage.name)} have this name. Give them by their numbers in the list, or cut one folder "
                "at a time."
            )
    about = {"file": printable(file.path.name), "signature": signature_of([(file.path.name, file.path)])}
    return BoxSource(lambda frame: [*file.boxes.get(frame.number, ()), *file.boxes.get(frame.name, ())], about=about)


def boxes_of_detector(detector: Detector) -> BoxSource:
    """The boxes that a detector finds in a frame."""
    about = getattr(detector, "about", {})
    if isinstance(detector, ByteTracked):
        found = detector.detector
        return BoxSource(lambda frame: found(frame.pixels), detector.join, about=about)
    has_memory = isinstance(detector, UltralyticsDetector) and detector.tracked
    return BoxSource(lambda frame: detector(frame.pixels), has_memory=has_memory, about=about)


def boxes_behind_the_end(file: BoxFile, footage: Footage) -> str:
    """The remark that a file has boxes of frames behind the last one that was read; "" where it has none."""
    behind = [len(boxes) for key, boxes in file.boxes.items() if isinstance(key, int) and key > footage.last]
    if not behind:
        return ""
    return (
        f"{sum(behind)} boxes of {printable(str(file.path))}: they are of frames behind frame {footage.last}, the last "
        f"one of {printable(footage.name)}"
    )
