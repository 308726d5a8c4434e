"""Frames of a video that OpenCV reads, and photos, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fastreid_clip3d.common.images import UnreadableImage, read_image
from fastreid_clip3d.common.names import as_utf8, printable
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.pictures import SUFFIXES, list_images


class Frame(NamedTuple):
    """One frame.

    Attributes:
        number: from 1; of a photo its place in the list. name: the photo's file, or of a video the number's six digits.
        pixels: uint8 [H, W, 3], BGR.
    """

    number: int
    name: str
    pixels: np.ndarray


@dataclass
class Footage:
    """Frames of one camera: a video, or photos.

    Attributes:
        name: the video's or the folder's name without ending.
        paths: the video, or the photos in order. is_video: which of them.
        unreadable: photos that could not be read and what is wrong with them; a video's missing end.
        last: number of the last frame that was there to be read.
    """

    name: str
    paths: list[Path]
    is_video: bool
    unreadable: list[str] = field(default_factory=list)
    last: int = 0

    def count(self, every: int) -> int:
        """The number of frames that :meth:`frames` gives; 0 where the video's header does not say it."""
        total = _header_count(self.paths[0]) if self.is_video else len(self.paths)
        return -(-total // every)

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Every n-th frame, the first one included.

        Raises:
            ClearError: the video has no frame that OpenCV can read.
        """
        return self._video(every) if self.is_video else self._photos(every)

    def _photos(self, every: int) -> Iterator[Frame]:
        self.last = len(self.paths)
        for number, path in enumerate(self.paths, start=1):
            if (number - 1) % every:
                continue
            try:
                pixels = np.asarray(read_image(path))[:, :, ::-1]
            except UnreadableImage as error:
                self.unreadable.append(str(error))
                continue
            yield Frame(number, path.name, np.ascontiguousarray(pixels))

    def _video(self, every: int) -> Iterator[Frame]:
        path = self.paths[0]
        video = cv2.VideoCapture(str(path))
        number = 0
        try:
            while video.grab():
                number += 1
                if (number - 1) % every:
                    continue
                read, pixels = video.retrieve()
                if not read:
                    self.unreadable.append(f"{printable(str(path))}: frame {number} cannot be decoded")
                    continue
                yield Frame(number, f"{number:06}", pixels)
        finally:
            video.release()
            self.last = number
        if not number:
            raise ClearError(
                f"{printable(str(path))}: OpenCV reads no frame of it. It is no video, it is damaged, or its codec is "
                f"missing; convert it, for example with ffmpeg -i {printable(path.name)} -c:v libx264 video.mp4."
            )
        announced = _header_count(path)
        if number < 0.99 * announced:
            self.unreadable.append(f"{printable(str(path))} ends at frame {number}; its header says {announced} frames")


def find_footage(sources: Sequence[str | Path]) -> list[Footage]:
    """Videos and photos that a user names.

    Args:
        sources: video files, and photos, folders of photos, globs and ``.txt`` lists. All photos are one camera.

    Raises:
        ClearError: a source does not exist or has no pictures, or OpenCV cannot open its name.
    """
    videos = [Path(source) for source in sources if _is_video(source)]
    for path in videos:
        if as_utf8(str(path)) != str(path):  # OpenCV 5 ends the process
            raise ClearError(f"{printable(str(path))}: OpenCV opens no video whose name is not UTF-8. Rename it.")
    photos = [str(source) for source in sources if not _is_video(source)]
    footage = [Footage(path.stem, [path], True) for path in videos]
    if photos:
        paths = [entry.frames[0] for entry in list_images(photos)]
        if not paths:
            raise ClearError(f"{printable(' '.join(photos))}: no images there.")
        # "." and ".." have a name only as whole paths; as the name of a folder they would lead out of the output.
        name = Path(os.path.abspath(photos[0])).stem if len(photos) == 1 and os.path.exists(photos[0]) else "photos"
        footage.append(Footage(name or "photos", paths, False))
    names = [one.name for one in footage]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ClearError(
            f"Two sources are called {printable(doubled[0])}, and their crops would mix. Rename one, or give them one "
            "after the other with two folders."
        )
    return footage


def _is_video(source: str | Path) -> bool:
    """Any file that is neither an image nor a list of images."""
    return os.path.isfile(source) and Path(source).suffix.lower() not in (*SUFFIXES - {".gif"}, ".txt")


def _header_count(path: Path) -> int:
    video = cv2.VideoCapture(str(path))
    try:
        return max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    finally:
        video.release()
