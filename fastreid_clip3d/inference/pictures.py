"""Lists the pictures that a user names by files, folders, globs and lists."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fastreid_clip3d.common.names import printable
from fastreid_clip3d.data.datasets.listing import walk
from fastreid_clip3d.errors import ClearError

SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2",
    ".avif",
))  # fmt: skip
"""Endings of the images that we take from a folder. A file that the user names may have any ending."""


class Entry(NamedTuple):
    """One item of a gallery: a picture, or with several frames a tracklet.

    Attributes:
        name: path as the user wrote it (for what a folder holds: folder / rest); of a tracklet its folder or list.
        frames: the files, one for a picture.
    """

    name: str
    frames: tuple[Path, ...]


Add = Callable[[str, Iterable[Path]], None]
"""Adds an entry by its name and frames."""


class Listing(list[Entry]):
    """Entries in order, and `passed_over`, the number of files in folders that have another ending than an image's."""

    passed_over: int = 0


def list_images(sources: Sequence[str | Path], tracklets: bool = False) -> Listing:
    """The pictures of `sources`: in the order of the sources, inside each in natural order, each once.

    Args:
        sources: files, folders (with all folders in them; hidden ones and hidden files are ignored), globs (of image
            files and folders), and ``.txt`` lists with one of these on each line (relative to the list; empty lines and
            lines with # are passed over).
        tracklets: a folder that holds images directly is one entry, and so are the image files of a list.

    Raises:
        ClearError: a source that does not exist, or an empty glob or list. A missing file of a list becomes an entry,
            whose reader then reports it.
    """
    listing, seen = Listing(), set()

    def add(name: str, frames: Iterable[Path]) -> None:
        key = tuple(os.path.abspath(frame) for frame in frames)
        if key and key not in seen:
            seen.add(key)
            listing.append(Entry(name, tuple(frames)))

    for source in sources:
        is_glob = not os.path.exists(source)
        for found in _expand(str(source)):
            if found.is_dir():
                listing.passed_over += _add_folder(found, tracklets, add)
            elif is_glob and found.suffix.lower() not in SUFFIXES:
                listing.passed_over += 1
            elif found.suffix.lower() == ".txt":
                listing.passed_over += _add_list(found, tracklets, add)
            else:
                add(str(found), [found])
    return listing


def signature_of(files: Iterable[tuple[str, Path]]) -> str:
    """Digest of the names, sizes and times of (name, file) pairs; a missing file counts as "missing"."""
    digest = hashlib.sha256()
    for name, file in files:
        try:
            status = os.stat(file)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(os.fsencode(name) + b"\0" + state.encode() + b"\0")
    return digest.hexdigest()[:32]


def natural_order(text: str) -> list[tuple[int, int | str]]:
    """Sorting key by which ``img2`` comes before ``img10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part.casefold()) for part in re.split(r"(\d+)", text) if part]


def _expand(source: str) -> list[Path]:
    if os.path.exists(source):
        return [Path(source)]
    if glob.has_magic(source):
        found = sorted(glob.iglob(source, recursive=True), key=natural_order)
        if found:
            return [Path(path) for path in found]
        raise ClearError(f"{source}: no file has such a name.")
    raise ClearError(f"{source}: no such file or folder.")


def _add_folder(folder: Path, tracklets: bool, add: Add) -> int:
    """Adds what a folder holds; returns the number of files passed over."""
    passed_over = 0
    for place, names in _walk(folder):
        images = [Path(place, name) for name in names if Path(name).suffix.lower() in SUFFIXES]
        passed_over += len(names) - len(images)
        if tracklets:
            add(str(place), images)
        else:
            for image in images:
                add(str(image), [image])
    return passed_over


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with its files, both in natural order; a folder that a link leads back to is visited once."""
    for place, folders, names in walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_order)
        yield Path(place), sorted((name for name in names if not name.startswith(".")), key=natural_order)


def _add_list(path: Path, tracklets: bool, add: Add) -> int:
    """Adds what a list names; returns the number of files of its folders passed over."""
    if not path.is_file():
        raise ClearError(
            f"{printable(str(path))} is no regular file; a list of images is a text file, one path per line."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ClearError(f"{path} cannot be read as a list of images, one path per line: {error}") from error
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ClearError(f"{path}: the list names no image.")
    passed_over, frames = 0, []
    for line in lines:
        beside = path.parent / line
        for found in _expand_line(str(beside) if os.path.exists(beside) or not os.path.exists(line) else line):
            if os.path.isdir(found):  # False for names that no file can have, where pathlib raises
                passed_over += _add_folder(found, tracklets, add)
            elif tracklets:
                frames.append(found)
            else:
                add(str(found), [found])
    add(str(path), frames)
    return passed_over


def _expand_line(line: str) -> list[Path]:
    try:
        return _expand(line)
    except ClearError:
        return [Path(line)]
