"""Reads who is on which picture from the names of folders and files, for folders that no dataset class describes.

Every file below the folder becomes a :class:`Picture`, or stands in :attr:`FolderContent.left_out` with the reason.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, get_args

from fastreid_clip3d.common.names import printable
from fastreid_clip3d.data.datasets.listing import IMAGE_ENDINGS, DatasetNotFound, DatasetProblem, files_below

Layout = Literal["person-folders", "market1501", "dukemtmc", "tracker"]
InnerFolders = Literal["", "clothes", "camera"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

SPLIT_FOLDERS = {
    "train": "train", "bounding_box_train": "train",
    "query": "query",
    "gallery": "gallery", "bounding_box_test": "gallery",
    "test": "test", "val": "test",
}  # fmt: skip
"""Name of a folder at the top, in lower case -> the split of its pictures; ``test`` is query and gallery together."""
CROPS_FILE = "crops.csv"
"""The table that ``clip3d crops`` writes beside its folders of tracks."""

PERSON_AND_CAMERA = re.compile(r"(?P<person>-?\d+)_c(?P<camera>\d+)")
MARKET_NAME = re.compile(r"-?\d+_c\d+s\d+_")
DUKE_NAME = re.compile(r"\d+_c\d+_f\d+")
TRACK_FOLDER = re.compile(r"(track|id|tracklet)?[ _-]?\d+", re.IGNORECASE)
LAST_NUMBER = re.compile(r"(\d+)\D*$")

NO_IMAGE = "no image, by its ending"
HIDDEN = "hidden"
JUNK = "junk: the number of the person is negative"
OTHER_NAME = "its name is not PERSON_cCAMERA..., as in 0002_c1s1_000451_03.jpg"
OTHER_SPLIT = "beside the folders of the splits"
TOO_DEEP = "in a folder inside a person's folder (--inner-folders says what such a folder is)"
NOT_INNER = "not in a folder inside a person's folder"
NO_FOLDER = "in no person's folder"
NO_TRACK = "neither TRACK/FRAME nor CAMERA/TRACK/FRAME"
NO_FRAME = "its name has no number of a frame"
NOBODY = f"{CROPS_FILE} has no track for it, so nobody knows who it is"
HARMLESS = (NO_IMAGE, HIDDEN, JUNK)
"""Reasons for which every good copy of a dataset has files that are left out."""


class Picture(NamedTuple):
    """What the names of a picture and of its folders say; "" stands for what they do not say.

    Attributes:
        path: below the folder, with forward slashes.
        split: train, query, gallery, or test for query and gallery together.
    """

    path: str
    person: str
    camera: str = ""
    clothes: str = ""
    split: str = ""


@dataclass
class FolderContent:
    """The pictures of a folder in natural order, and by reason the files that are none."""

    layout: Layout
    why: str
    pictures: list[Picture] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, path: str, reason: str) -> None:
        self.left_out.setdefault(reason, []).append(path)

    @property
    def misfits(self) -> list[str]:
        """The files that are left out and could belong to the dataset."""
        return [path for reason, paths in self.left_out.items() if reason not in HARMLESS for path in paths]


def read_folder(folder: str | Path, layout: Layout | Literal[""] = "", inner: InnerFolders = "") -> FolderContent:
    """Reads a folder in a layout.

    =================  =====================================================================
    layout             names
    =================  =====================================================================
    person-folders     ``[SPLIT/]PERSON/*.jpg``, with `inner` ``[SPLIT/]PERSON/INNER/*.jpg``
    market1501         ``[SPLIT/]PERSON_cCAMERA*.jpg``
    dukemtmc           the same
    tracker            ``TRACK/FRAME.jpg`` or ``CAMERA/TRACK/FRAME.jpg``
    =================  =====================================================================

    Args:
        folder: all files below it are read; :data:`SPLIT_FOLDERS` has the names of the splits.
        layout: "": the layout is guessed; ``why`` of the result has the reason.
        inner: what a folder inside a person's folder is, for person-folders.

    Raises:
        DatasetNotFound: there is no such folder. DatasetProblem: the layout cannot be guessed, or no picture fits it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetNotFound(f"{printable(str(folder))} is not a folder. Give the folder that holds the pictures.")
    names = list(files_below(folder))
    images = [name for name in names if name.lower().endswith(IMAGE_ENDINGS) and not _is_hidden(name)]
    if not images:
        raise DatasetProblem(
            f"{printable(str(folder))} has no images: no file below it ends in {', '.join(IMAGE_ENDINGS)}."
        )
    chosen, why = (layout, "you named it") if layout else guess_layout(folder, images)
    if inner and chosen != "person-folders":
        raise DatasetProblem(f"--inner-folders is for the layout person-folders, and this one is {chosen} ({why}).")
    content = FolderContent(chosen, why)
    has_splits = chosen != "tracker" and any(_split_of(name) for name in images)
    parse = _PARSERS[chosen]
    known, nobody = set(images), _crops_without_track(folder) if chosen == "tracker" else set()
    for name in sorted(names, key=_natural_order):
        if name not in known:
            content.leave_out(name, HIDDEN if _is_hidden(name) else NO_IMAGE)
            continue
        if name in nobody:
            content.leave_out(name, NOBODY)
            continue
        parts, split = PurePosixPath(name).parts, ""
        if has_splits:
            split = _split_of(name)
            if not split:
                content.leave_out(name, OTHER_SPLIT)
                continue
            parts = parts[1:]
        found = parse(name, parts, split, inner)
        if isinstance(found, str):
            content.leave_out(name, found)
        else:
            content.pictures.append(found)
    if not content.pictures:
        reasons = "; ".join(f"{len(paths)}: {reason}" for reason, paths in content.left_out.items())
        raise DatasetProblem(
            f"{printable(str(folder))}: no picture fits the layout {chosen} ({reasons}). Give another --layout: "
            f"{', '.join(LAYOUTS)}."
        )
    return content


def guess_layout(folder: Path, images: list[str]) -> tuple[Layout, str]:
    """The layout of a folder, from the names of its images, and the reason in words.

    Raises:
        DatasetProblem: the names fit no layout.
    """
    files = [PurePosixPath(name).name for name in images]
    schemes: tuple[tuple[Layout, re.Pattern[str]], ...] = (("market1501", MARKET_NAME), ("dukemtmc", DUKE_NAME))
    for layout, pattern in schemes:
        matching = [file for file in files if pattern.match(file)]
        if 2 * len(matching) > len(files):
            return layout, f"{len(matching)} of {len(files)} names look like {matching[-1]}"
    depths = Counter(len(PurePosixPath(name).parts) - bool(_split_of(name)) for name in images)
    depth = depths.most_common(1)[0][0]
    if (folder / CROPS_FILE).is_file():
        return "tracker", f"it has the file {CROPS_FILE}, which clip3d crops writes"
    if depth == 3 and all(TRACK_FOLDER.fullmatch(PurePosixPath(name).parent.name) for name in images):
        return "tracker", f"the pictures lie in numbered folders inside folders, as {images[0]} does"
    if depth >= 2:
        return "person-folders", f"the pictures lie in folders, as {images[0]} does"
    raise DatasetProblem(
        f"{printable(str(folder))}: its layout cannot be guessed: the pictures lie side by side, and their names are "
        f"neither Market-1501's (0002_c1s1_000451_03.jpg) nor DukeMTMC's (0005_c2_f0046985.jpg), such as "
        f"{printable(images[0])}. Put each person's pictures into a folder, or write the CSV file yourself."
    )


def _crops_without_track(folder: Path) -> set[str]:
    try:
        with open(folder / CROPS_FILE, encoding="utf-8", newline="") as lines:
            return {row["file"] for row in csv.DictReader(lines) if not row["track"]}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, KeyError) as error:
        raise DatasetProblem(
            f"{printable(str(folder / CROPS_FILE))} cannot be read as the table of clip3d crops ({error!r}). Remove it."
        ) from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _split_of(name: str) -> str:
    parts = PurePosixPath(name).parts
    return SPLIT_FOLDERS.get(parts[0].lower(), "") if len(parts) > 1 else ""


def _natural_order(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


# A parser takes a picture's path, the parts of it below the split's folder, the split, and what inner folders are. It
# gives the picture, or the reason why it does not fit.
_Parser = Callable[[str, "tuple[str, ...]", str, InnerFolders], "Picture | str"]


def _person_folders(path: str, parts: tuple[str, ...], split: str, inner: InnerFolders) -> Picture | str:
    if len(parts) == 1:
        return NO_FOLDER
    if len(parts) > 2 + bool(inner):
        return TOO_DEEP
    if not inner:
        return Picture(path, parts[0], split=split)
    if len(parts) == 2:
        return NOT_INNER
    if inner == "camera":
        return Picture(path, parts[0], camera=parts[1], split=split)
    return Picture(path, parts[0], clothes=parts[1], split=split)


def _person_and_camera(path: str, parts: tuple[str, ...], split: str, inner: InnerFolders) -> Picture | str:
    found = PERSON_AND_CAMERA.match(parts[-1])
    if len(parts) > 1 or found is None:
        return OTHER_NAME
    person = int(found["person"])
    return JUNK if person < 0 else Picture(path, str(person), str(int(found["camera"])), split=split)


def _track(path: str, parts: tuple[str, ...], split: str, inner: InnerFolders) -> Picture | str:
    if len(parts) not in (2, 3):
        return NO_TRACK
    if not LAST_NUMBER.search(PurePosixPath(parts[-1]).stem):
        return NO_FRAME
    if len(parts) == 2:
        return Picture(path, parts[0])
    return Picture(path, f"{parts[0]}_{parts[1]}", camera=parts[0])


_PARSERS: dict[Layout, _Parser] = {
    "person-folders": _person_folders,
    "market1501": _person_and_camera,
    "dukemtmc": _person_and_camera,
    "tracker": _track,
}
