"""A dataset as one CSV file, for data in any layout: columns path, pid, camid, clothes, split."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.common.dataset_root import dataset_root
from fastreid_clip3d.data.datasets.base import SPLITS, ClothesDataset, Item, register_dataset, registered_datasets
from fastreid_clip3d.data.datasets.listing import DatasetNotFound, DatasetProblem, SplitNotes, first_few
from fastreid_clip3d.evaluation.protocols import CC, GENERAL, NOTHING_REMOVED, SC, Protocol

COLUMNS = ("path", "pid", "camid", "clothes", "split")
REQUIRED_COLUMNS = ("path", "pid", "split")
CSV_VARIABLE = "FASTREID_CSV"
NUMBER = re.compile(r"-?\d{1,18}")
"""Ids that we read as numbers. Longer ones (hashes, time stamps) do not fit into int64, so they stay text."""
JUNK = re.compile(r"-\d+")
CAMERA_OF_TRAIN = 0


def read_csv(path: str) -> list[tuple[int, dict[str, str]]]:
    """Pairs (line number, row) of a CSV file, with stripped cells and without blank lines.

    Raises:
        DatasetProblem: the file cannot be read, a quote is not closed, a column is missing or unknown, a required cell
            is empty, a split is unknown.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise DatasetProblem(f"{path} is not a text file in UTF-8: {error}") from None
    except OSError as error:
        raise DatasetProblem(f"{path} cannot be read: {error.strerror}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, restkey="", strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        rows.extend(_rows_of(reader, path))
    except csv.Error as error:
        last = f"line {rows[-1][0]}" if rows else "the first line"
        raise DatasetProblem(f"{path}: the row after {last} cannot be read ({error}). Is a quote not closed?") from None
    if not rows:
        raise DatasetProblem(f"{path} has no line below its first")
    return rows


def _rows_of(reader: csv.DictReader[str], path: str) -> Iterator[tuple[int, dict[str, str]]]:
    columns = [name.strip() for name in reader.fieldnames or []]
    unknown = [name for name in columns if name not in COLUMNS]
    absent = [name for name in REQUIRED_COLUMNS if name not in columns]
    if unknown or absent or len(set(columns)) != len(columns):
        raise DatasetProblem(
            f"{path}: its first line has the columns {', '.join(map(repr, columns)) or 'none'}; it must name "
            f"{', '.join(REQUIRED_COLUMNS)}, may name camid and clothes, and no other column and none twice."
        )
    reader.fieldnames = columns
    for row in reader:
        line = reader.line_num
        if "" in row:
            raise DatasetProblem(f"{path}, line {line}: more cells than columns; put a path with a comma in quotes")
        cells = {name: (value or "").strip() for name, value in row.items()}
        if not any(cells.values()):
            continue
        empty = [name for name in columns if name != "clothes" and not cells[name]]
        if empty:
            raise DatasetProblem(f"{path}, line {line}: {' and '.join(empty)} must not be empty")
        if cells["split"] not in SPLITS:
            raise DatasetProblem(
                f"{path}, line {line}: split is {cells['split']!r}; it must be one of {', '.join(SPLITS)}"
            )
        yield line, cells


def _number_or_text(cell: str) -> int | str:
    return int(cell) if NUMBER.fullmatch(cell) else cell


@DATASET_REGISTRY.register()
class CSVDataset(ClothesDataset):
    """Reads one CSV file: FASTREID_CSV, or ``dataset.csv`` in the datasets' folder, or a file that
    :func:`register_csv_dataset` has named.

    Columns: ``path`` (relative to the CSV's folder, or absolute), ``pid``, ``camid`` (numbers or any text; may be
    absent), ``clothes`` (any text, unique among the outfits of one person; empty: not known; may be absent), ``split``
    (train, query or gallery). The same pid in train and in test is the same person. We leave out negative pids. A file
    without train lines is for testing only.

    Protocols: ``general``; where all clothes of the test are known also ``CC`` and ``SC``, if any query has a match by
    them. Without cameras (no column camid, or one camera in the whole test) each test image counts as a camera of its
    own, since ``general`` would remove every match: ``nothing`` takes its place, and ``CC`` and ``SC`` go by clothes
    alone. :meth:`hints` names the protocols that are not scored, and why.
    """

    dataset_name = "csv"
    layout = "a CSV file with the columns path,pid,camid,clothes,split"
    one_numbering = True
    how_to_obtain = f"set {CSV_VARIABLE} to the file, or put it there as dataset.csv."
    csv_path = ""

    def __init__(self, root: str = "", csv_path: str = "", **kwargs: Any) -> None:
        given = str(csv_path) or self.csv_path or os.getenv(CSV_VARIABLE, "")
        self.csv_path = os.path.abspath(given or os.path.join(root or dataset_root(), "dataset.csv"))
        super().__init__(root, **kwargs)

    def required_files(self) -> list[str]:
        return [self.csv_path]

    @cached_property
    def rows(self) -> list[tuple[int, dict[str, str]]]:
        """The file's lines, read once."""
        return read_csv(self.csv_path)

    @cached_property
    def test_rows(self) -> list[tuple[int, dict[str, str]]]:
        """The lines of query and gallery."""
        return [(line, cells) for line, cells in self.rows if cells["split"] != "train"]

    @property
    def has_cameras(self) -> bool:
        return "camid" in self.rows[0][1]

    @property
    def test_has_cameras(self) -> bool:
        """Whether a match in another camera is possible."""
        return self.has_cameras and len({cells["camid"] for _, cells in self.test_rows}) > 1

    def hints(self) -> list[str]:
        hints = []
        if self.test_rows and not self.test_has_cameras:
            why = "names one camera only for the test" if self.has_cameras else "has no column camid"
            hints.append(
                f"{self.csv_path} {why}: protocol {GENERAL.name}, which needs a match in another camera, is not "
                f"scored. Protocol {NOTHING_REMOVED.name} takes its place: it removes no gallery image, so pictures of "
                "the same moment count as matches"
            )
        unknown = [line for line, cells in self.test_rows if not cells.get("clothes")]
        if unknown:
            lines = "" if len(unknown) == len(self.test_rows) else f" (the first is line {unknown[0]})"
            hints.append(
                f"{self.csv_path} does not name the clothes of {len(unknown)} of {len(self.test_rows)} test images"
                f"{lines}: protocols {CC.name} and {SC.name}, which need the clothes of all of them, are not scored"
            )
        elif unmatched := [protocol.name for protocol in (CC, SC) if not self._has_match(protocol)]:
            hints.append(
                f"{self.csv_path}: no query has a match by protocol {' or '.join(unmatched)}, which is not scored; "
                f"{CC.name} needs people in other clothes in the gallery, {SC.name} people in the same clothes"
            )
        return hints

    @property
    def has_train(self) -> bool:
        return any(cells["split"] == "train" for _, cells in self.rows)

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        first = GENERAL if self.test_has_cameras or not self.test_rows else NOTHING_REMOVED
        if not all(cells.get("clothes") for _, cells in self.test_rows):
            return (first,)
        return (first, *(protocol for protocol in (CC, SC) if self._has_match(protocol)))

    def _has_match(self, protocol: Protocol) -> bool:
        """Whether any query has a match by CC or SC, as the file has it."""
        seen: dict[str, set[tuple[int | str, str]]] = {}
        for line, cells in self.test_rows:
            if cells["split"] == "gallery":
                seen.setdefault(cells["pid"], set()).add((self._camera(line, cells), cells["clothes"]))
        return any(
            camera != self._camera(line, cells) and (clothes == cells["clothes"]) == (protocol is SC)
            for line, cells in self.test_rows
            if cells["split"] == "query"
            for camera, clothes in seen.get(cells["pid"], ())
        )

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        folder = os.path.dirname(self.csv_path)
        for line, cells in self.rows:
            if cells["split"] != split:
                continue
            path = os.path.join(folder, cells["path"])
            person = _number_or_text(cells["pid"])
            if JUNK.fullmatch(cells["pid"]):
                notes.junk.append(path)
            elif not os.path.isfile(path):
                notes.missing.append(path)
            else:
                outfit = f"{person}_{cells['clothes']}" if cells.get("clothes") else None
                yield Item(path, person, self._camera(line, cells), outfit)

    def _nothing_found(self, split: str, notes: SplitNotes) -> str:
        if notes.missing:
            return (
                f"{self.csv_path} names {len(notes.missing)} {split} images, and none of these files exists: "
                f"{first_few(notes.missing)}. Paths in it are relative to its folder, {os.path.dirname(self.csv_path)}."
            )
        junk = f" but {len(notes.junk)} with a negative pid, which are left out" if notes.junk else ""
        return f"{self.csv_path} names no {split} image{junk}. Write {split} into the column split of its images."

    def _camera(self, line: int, cells: dict[str, str]) -> int | str:
        if cells["split"] == "train":
            return _number_or_text(cells["camid"]) if self.has_cameras else CAMERA_OF_TRAIN
        return _number_or_text(cells["camid"]) if self.test_has_cameras else line


def register_csv_dataset(name: str, path: str) -> type[CSVDataset]:
    """Gives a CSV file a name for DATASETS.NAMES and DATASETS.TESTS; the same pair may be registered again.

    Raises:
        DatasetProblem: the name belongs to another dataset. DatasetNotFound: no file at ``path``.
    """
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise DatasetNotFound(f"CSV dataset {name!r}: {path} is missing. Correct its path in DATASETS.CSV.")
    known = registered_datasets().get(name)
    if known is not None:
        if issubclass(known, CSVDataset) and known.csv_path == path:
            return known
        raise DatasetProblem(f"CSV dataset {name!r}: a dataset of this name exists already; choose another name")
    return register_dataset(name, CSVDataset, f"The CSV dataset {path}.", csv_path=path, dataset_name=name)
