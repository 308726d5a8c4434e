"""Reads the folders and lists of a dataset, sorted; every file that is left out is noted."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from re import Pattern

from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""What counts as an image, compared in lower case."""
OTHER_IMAGE_ENDINGS = (".tif", ".tiff", ".gif", ".jfif", ".jp2", ".ppm", ".avif", ".heic")
"""Images that we do not read; leaving them out without a word would make a dataset smaller."""


class DatasetNotFound(ClearError, RuntimeError):
    """A folder or list of a dataset is missing. It is a RuntimeError, too, as fast-reid's datasets raise."""


class DatasetProblem(ClearError):
    """A dataset that cannot be used: an empty split, an unreadable list, an unknown name."""


@dataclass
class SplitNotes:
    """The names that reading a split left out.

    Attributes:
        unmatched: images whose name does not follow the dataset's pattern or has the ending of another kind of image,
            and lines of a list that cannot be read.
        missing: files that a list names and the folder does not have, links that lead nowhere, and tracklets without
            frames.
        junk: images without a person (a negative person number, as in Market-1501).
        ignored: files that are not images (Thumbs.db, ._*).
    """

    unmatched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    junk: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        """A warning: one sentence on names and one on files, each after a space; "" without such names and files."""
        words = ""
        if self.unmatched:
            words += f" {len(self.unmatched)} names were not understood: {first_few(self.unmatched)}."
        if self.missing:
            words += f" {len(self.missing)} files are missing: {first_few(self.missing)}."
        return words


def first_few(names: list[str], count: int = 5) -> str:
    """The first names of a list in quotes, and how many more there are."""
    shown = ", ".join(f"'{printable(name)}'" for name in names[:count])
    return shown + (f" and {len(names) - count} more" if len(names) > count else "")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetProblem(f"{folder} cannot be listed: {error.strerror}. It must be a folder of images.") from None


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def image_names(folder: str, notes: SplitNotes) -> list[str]:
    """The names of the images directly in a folder, sorted; other files are noted.

    Raises:
        DatasetProblem: this is no folder, or we may not read it.
    """
    names = []
    for entry in _entries(folder):
        path, ending = os.path.join(folder, entry.name), os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith(".") or ending not in IMAGE_ENDINGS + OTHER_IMAGE_ENDINGS or _is(entry.is_dir):
            notes.ignored.append(path)
        elif ending in OTHER_IMAGE_ENDINGS:
            notes.unmatched.append(path)
        elif _is(entry.is_file):
            names.append(entry.name)
        else:
            notes.missing.append(path)
    return names


def subfolder_names(folder: str, notes: SplitNotes) -> list[str]:
    """The names of the folders directly in a folder, sorted; files among them are noted as ignored.

    Raises:
        DatasetProblem: this is no folder, or we may not read it.
    """
    names = []
    for entry in _entries(folder):
        if not entry.name.startswith(".") and _is(entry.is_dir):
            names.append(entry.name)
        else:
            notes.ignored.append(os.path.join(folder, entry.name))
    return names


def files_below(folder: str | os.PathLike[str]) -> Iterator[str]:
    """The names of all files below a folder, relative to it and with forward slashes, sorted by folder.

    Folders that are links are entered, each once.
    """
    for place, subfolders, files in walk(folder):
        subfolders.sort()
        for file in sorted(files):
            yield Path(place, file).relative_to(folder).as_posix()


def walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """:func:`os.walk` that enters folders which are links; a folder that a link leads back to is visited once."""
    visited = set()
    for place, subfolders, files in os.walk(folder, followlinks=True):
        identity = os.path.realpath(place)
        if identity in visited:
            subfolders.clear()
            continue
        visited.add(identity)
        yield place, subfolders, files


def matching_images(folder: str, pattern: Pattern[str], notes: SplitNotes) -> Iterator[tuple[str, re.Match[str]]]:
    """Pairs (path, match) of the images in a folder whose names begin with the pattern.

    Other images are noted as unmatched, and those with a negative number in the group ``person`` as junk.
    """
    for name in image_names(folder, notes):
        path = os.path.join(folder, name)
        match = pattern.match(name)
        if match is None:
            notes.unmatched.append(path)
        elif match.groupdict().get("person", "").startswith("-"):
            notes.junk.append(path)
        else:
            yield path, match


def list_lines(path: str) -> Iterator[tuple[int, str]]:
    """Pairs (line number from 1, stripped text) of a list's lines that are not blank.

    Raises:
        DatasetProblem: the file cannot be read as text.
    """
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError as error:
        raise DatasetProblem(f"{path} is not a text file in UTF-8: {error}. Give the dataset's own list.") from None
    except OSError as error:
        raise DatasetProblem(f"{path} cannot be read: {error.strerror}. Give the dataset's own list.") from None
