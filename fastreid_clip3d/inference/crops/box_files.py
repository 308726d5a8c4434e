"""Boxes of people from a file: MOTChallenge's text format, or json."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError

TRACK_NAME = re.compile(r"[\w-][\w.-]{0,99}")
"""A track's id becomes the name of a folder."""
PEDESTRIAN = 1
"""MOTChallenge's class of people, in the eighth column of its ground truth (nine columns)."""


class Box(NamedTuple):
    """A person in a frame: corners in pixels, score 0..1, and the track; "": none."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float = 1.0
    track: str = ""


class BoxFile(NamedTuple):
    """The boxes of a file by frame: by its number from 1, or by a photo's file name.

    ``other_classes`` is the number of boxes that are no people.
    """

    path: Path
    boxes: dict[int | str, list[Box]]
    other_classes: int = 0


def read_boxes(path: str | Path) -> BoxFile:
    """Reads ``.txt`` or ``.json``.

    A line of a text file is ``frame,id,x,y,w,h,conf`` (x, y: the top left corner, frames from 1; more columns may
    follow). An id of -1 stands for no track, a conf of -1 for no score.

    A json file is a list of ``{"frame": 1, "id": 7, "xyxy": [x1, y1, x2, y2], "score": 0.9}``; ``id`` and ``score`` may
    be missing, ``"xywh"`` takes the place of ``"xyxy"``, and ``frame`` may be a photo's file name.

    Raises:
        ClearError: the file cannot be read; the line or entry that is wrong.
    """
    path = Path(path)
    shown = printable(str(path))
    if path.suffix.lower() not in (".txt", ".json"):
        raise ClearError(f"{shown}: boxes are read from .txt (MOT: frame,id,x,y,w,h,conf) or .json.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ClearError(f"{shown} cannot be read ({error}).") from error
    boxes: dict[int | str, list[Box]] = {}
    others = 0
    if path.suffix.lower() == ".txt":
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            frame, box, is_person = _mot_line(line, f"{shown}, line {number}")
            if is_person:
                boxes.setdefault(frame, []).append(box)
            else:
                others += 1
    else:
        for key, box in _json_entries(text, shown):
            boxes.setdefault(key, []).append(box)
    if not boxes:
        raise ClearError(f"{shown} has no boxes{f' of people ({others} of other classes)' if others else ''}.")
    return BoxFile(path, boxes, others)


def _mot_line(line: str, where: str) -> tuple[int, Box, bool]:
    cells = [cell for cell in re.split(r"[,\s]+", line.strip()) if cell]
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        raise ClearError(f"{where}: {printable(line.strip())!r} has a cell that is no number.") from None
    if len(numbers) < 6 or not numbers[0].is_integer() or not numbers[1].is_integer() or numbers[0] < 1:
        raise ClearError(f"{where}: {printable(line.strip())!r} is not frame,id,x,y,w,h,conf with frames from 1.")
    frame, track = int(numbers[0]), int(numbers[1])
    score = numbers[6] if len(numbers) > 6 and numbers[6] >= 0 else 1.0
    is_person = len(numbers) != 9 or numbers[7] in (PEDESTRIAN, -1)
    return frame, _box(numbers[2:6], True, score, "" if track < 0 else str(track), where), is_person


def _json_entries(text: str, shown: str) -> list[tuple[int | str, Box]]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ClearError(f"{shown} is no json: {error}.") from None
    if not isinstance(entries, list):
        raise ClearError(f"{shown} holds a {type(entries).__name__}; it must be a list, with one entry per box.")
    return [_json_entry(entry, f"{shown}, entry {place}") for place, entry in enumerate(entries)]


def _json_entry(entry: Any, where: str) -> tuple[int | str, Box]:
    if not isinstance(entry, dict):
        raise ClearError(f"{where} is no object with frame and xyxy.")
    frame: Any = entry.get("frame")
    is_number = isinstance(frame, int) and not isinstance(frame, bool) and frame >= 1
    if not is_number and not (isinstance(frame, str) and frame):
        raise ClearError(f"{where}: frame is {frame!r}; it must be a number from 1 or a photo's file name.")
    names = [name for name in ("xyxy", "xywh") if name in entry]
    if len(names) != 1:
        raise ClearError(f"{where}: it must have either xyxy or xywh.")
    track, score = entry.get("id"), entry.get("score", 1.0)
    if track is not None and (isinstance(track, bool) or not isinstance(track, (int, str))):
        raise ClearError(f"{where}: id is {track!r}; it must be a number or text.")
    name = "" if track is None or track == -1 else str(track)
    if name and not TRACK_NAME.fullmatch(name):
        raise ClearError(f"{where}: id is {track!r}; letters, digits, _, - and . can name the folder of a track.")
    return frame, _box(entry[names[0]], names[0] == "xywh", score, name, where)


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _box(numbers: Any, has_size: bool, score: Any, track: str, where: str) -> Box:
    values = [*numbers, score] if isinstance(numbers, list) else []
    if len(values) != 5 or not all(map(_is_finite, values)):
        raise ClearError(f"{where}: a box is four finite numbers and a score, not {numbers!r} and {score!r}.")
    x1, y1, x2, y2, score = map(float, values)
    if has_size:
        x2, y2 = x1 + x2, y1 + y2
    if x2 <= x1 or y2 <= y1:
        raise ClearError(f"{where}: the box {numbers!r} has no area.")
    return Box(x1, y1, x2, y2, score, track)
