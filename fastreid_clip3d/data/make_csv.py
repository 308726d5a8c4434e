"""Writes the CSV file that :class:`CSVDataset` reads, from a folder of pictures in a known layout."""

from __future__ import annotations

import csv
import io
import os
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from fastreid_clip3d.common.files import check_writable, write_atomically
from fastreid_clip3d.common.names import as_utf8, printable
from fastreid_clip3d.data.datasets.base import SPLITS
from fastreid_clip3d.data.datasets.csv_dataset import COLUMNS
from fastreid_clip3d.data.datasets.listing import DatasetProblem, first_few
from fastreid_clip3d.data.folder_layouts import FolderContent, Picture
from fastreid_clip3d.errors import ClearError

SHOWN_ROWS, SHOWN_NAMES = 10, 10


@dataclass(frozen=True)
class Table:
    """The lines of a CSV file: cells by column, without the columns of which the folder says nothing."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    remarks: list[str]

    def sample(self, count: int = SHOWN_ROWS) -> list[dict[str, str]]:
        """Rows from all over the table, at equal steps."""
        count = min(count, len(self.rows))
        return [self.rows[place * len(self.rows) // count] for place in range(count)]


def make_table(content: FolderContent, folder: str | Path, output: str | Path, seed: int, test_share: float) -> Table:
    """The table of a folder's pictures.

    Where the layout names no split, people are dealt out by chance: `test_share` of them to the test, the others to
    train. Where it does not tell query from gallery, one picture per person and camera becomes a query, as in
    Market-1501, or one per person where cameras are not known; the other pictures are the gallery. A person with
    nothing to match (one picture, or one camera where there are several) is in the gallery only.

    Args:
        content: the pictures. folder: where they lie. output: the CSV file; paths in it are relative to its folder.
        seed: of the split; the same seed and pictures give the same table.
        test_share: share of the people who are in the test, above 0 and below 1.

    Raises:
        ClearError: the share is out of range. DatasetProblem: people are too few for a split.
    """
    if not 0 < test_share < 1:
        raise ClearError(f"--test-share is {test_share}; it must be above 0 and below 1.")
    pictures = content.pictures
    has_cameras = all(picture.camera for picture in pictures)
    has_clothes = all(picture.clothes for picture in pictures)
    remarks: list[str] = []
    several_cameras = has_cameras and len({picture.camera for picture in pictures}) > 1
    splits = _splits(pictures, several_cameras, seed, test_share, remarks)
    above = os.path.relpath(folder, os.path.dirname(os.path.abspath(output)))
    rows = []
    for picture, split in zip(pictures, splits):
        path = os.path.join(above, picture.path) if above != "." else picture.path
        if path != path.lstrip():
            path = os.path.join(".", path)  # the reader strips cells
        cells = (path, picture.person, picture.camera, picture.clothes, split)
        rows.append(dict(zip(COLUMNS, cells)))
    columns = tuple(name for name in COLUMNS if (name != "camid" or has_cameras) and (name != "clothes" or has_clothes))
    return Table(columns, [{name: row[name] for name in columns} for row in rows], remarks)


def write_table(table: Table, output: str | Path) -> Path:
    """Writes the table as CSV, whole or not at all; returns the path.

    Raises:
        ClearError: there is such a file already, or it cannot be written.
    """
    path = check_output(output)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, table.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.rows)
    try:
        content = text.getvalue().encode()
    except UnicodeEncodeError as error:
        name = as_utf8(text.getvalue()[max(error.start - 60, 0) : error.end].splitlines()[-1])
        raise DatasetProblem(f"A file's name is not UTF-8, which a CSV file must be: {name}. Rename it.") from None
    write_atomically(path, content)
    return path


def check_output(output: str | Path) -> Path:
    """Checks that a new ``.csv`` file can be written there.

    Raises:
        ClearError: it is there already, has another ending, or the folder cannot be written.
    """
    path = check_writable(output, (".csv",))
    if os.path.lexists(path):
        raise ClearError(f"{printable(str(path))} is there already. Choose another --output, or remove it.")
    return path


def in_words(content: FolderContent, table: Table) -> str:
    """The layout and its reason, ten rows, the counts, what is left out."""
    lines = [f"Layout {content.layout}: {printable(content.why)}."]
    shown = [[printable(row[name]) for name in table.columns] for row in table.sample()]
    lines.append(f"{len(shown)} of {len(table.rows)} rows:")
    lines.append(tabulate(shown, headers=list(table.columns), tablefmt="pipe", disable_numparse=True))
    headers = ["split", "people", "pictures", *(["cameras"] if "camid" in table.columns else [])]
    lines += ["", tabulate(_counts(table), headers=headers, tablefmt="pipe")]
    lines += ["", *(f"note: {remark}" for remark in table.remarks)]
    for reason, paths in content.left_out.items():
        lines.append(f"left out, {len(paths)} files, {reason}: {first_few(paths, SHOWN_NAMES)}")
    return "\n".join(lines).rstrip()


def as_json(content: FolderContent, table: Table, output: str) -> dict[str, Any]:
    """The whole report for json, with every file that is left out; `output` is "" where nothing is written."""
    return {
        "output": output,
        "layout": content.layout,
        "why": content.why,
        "columns": list(table.columns),
        "rows": len(table.rows),
        "sample": table.sample(),
        "splits": {row[0]: {"people": row[1], "pictures": row[2]} for row in _counts(table)},
        "notes": table.remarks,
        "left_out": content.left_out,
    }


def _counts(table: Table) -> list[list[Any]]:
    counts = []
    for split in SPLITS:
        rows = [row for row in table.rows if row["split"] == split]
        cameras = [len({row["camid"] for row in rows})] if "camid" in table.columns else []
        counts.append([split, len({row["pid"] for row in rows}), len(rows), *cameras])
    return counts


def _splits(
    pictures: list[Picture], several_cameras: bool, seed: int, test_share: float, remarks: list[str]
) -> list[str]:
    """The split of each picture: train, query or gallery."""
    generator = random.Random(seed)
    splits = [picture.split for picture in pictures]
    undecided = sorted({picture.person for picture in pictures if not picture.split})
    if undecided:
        if len(undecided) < 2:
            raise DatasetProblem(
                f"All pictures show one person ({printable(undecided[0])}): there is nobody for the other split."
            )
        generator.shuffle(undecided)
        count = min(max(round(test_share * len(undecided)), 1), len(undecided) - 1)
        in_test = set(undecided[:count])
        splits = [
            split or ("test" if picture.person in in_test else "train") for picture, split in zip(pictures, splits)
        ]
        remarks.append(
            f"the layout has no split: {count} of {len(undecided)} people are in the test, drawn with seed {seed}"
        )
    places_of: dict[str, list[int]] = defaultdict(list)
    for place, split in enumerate(splits):
        if split == "test":
            places_of[pictures[place].person].append(place)
    unmatched = []
    for person, places in sorted(places_of.items()):
        queries = _choose_queries([pictures[place].camera for place in places], several_cameras, generator)
        if not queries:
            unmatched.append(person)
        for number, place in enumerate(places):
            splits[place] = "query" if number in queries else "gallery"
    if places_of and len(unmatched) == len(places_of):
        raise DatasetProblem(
            "No person of the test can be a query: "
            + ("each is seen by one camera only." if several_cameras else "each has one picture only.")
        )
    if unmatched:
        remarks.append(
            f"{len(unmatched)} people of the test are in the gallery only, since they have "
            f"{'one camera' if several_cameras else 'one picture'}: {first_few(unmatched)}"
        )
    remarks += [f"there are no {split} pictures" for split in SPLITS if split not in splits]
    return splits


def _choose_queries(cameras: list[str], several_cameras: bool, generator: random.Random) -> set[int]:
    """The places of a person's queries, such that the gallery keeps a match for each."""
    if not several_cameras:
        return {generator.randrange(len(cameras))} if len(cameras) > 1 else set()
    if len(set(cameras)) < 2:
        return set()
    by_camera = [_places(cameras, camera) for camera in sorted(set(cameras))]
    rich = [places for places in by_camera if len(places) > 1]
    return {generator.choice(places) for places in rich} or {generator.choice(by_camera[0])}


def _places(values: Iterable[str], wanted: str) -> list[int]:
    return [place for place, value in enumerate(values) if value == wanted]
