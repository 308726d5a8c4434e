"""A picture of a dataset: one row per person, with some images of each split and their ids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw

from fastreid_clip3d.common.images import UnreadableImage, read_image, save_image
from fastreid_clip3d.data.records import Record, clothes_of

CELL_WIDTH, CELL_HEIGHT, LABEL_HEIGHT, MARGIN = 80, 160, 26, 4
COLOURS = {"train": (40, 90, 170), "query": (180, 40, 40), "gallery": (40, 130, 60)}

T = TypeVar("T")


def save_contact_sheet(
    splits: Mapping[str, Sequence[Record]], path: str | Path, people: int = 8, images_per_person: int = 10
) -> None:
    """Writes the sheet, evenly spread over people and their images; query images first, then gallery.

    Args:
        splits: "train", "query", "gallery" -> records; any may be absent. path: the ending gives the format.
        people: number of rows for train, and of rows for the test. images_per_person: number of columns.
    """
    test = [("query", record) for record in splits.get("query", ())]
    test += [("gallery", record) for record in splits.get("gallery", ())]
    train = [("train", record) for record in splits.get("train", ())]
    rows = _rows(train, people, images_per_person) + _rows(test, people, images_per_person)
    width = MARGIN + images_per_person * (CELL_WIDTH + MARGIN)
    height = MARGIN + len(rows) * (CELL_HEIGHT + LABEL_HEIGHT + MARGIN)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, cells in enumerate(rows):
        for column, (split, record) in enumerate(cells):
            left = MARGIN + column * (CELL_WIDTH + MARGIN)
            top = MARGIN + row * (CELL_HEIGHT + LABEL_HEIGHT + MARGIN)
            _draw_cell(sheet, draw, left, top, split, record)
    save_image(sheet, path)


def _rows(records: list[tuple[str, Record]], people: int, images_per_person: int) -> list[list[tuple[str, Record]]]:
    by_person: dict[object, list[tuple[str, Record]]] = defaultdict(list)
    for split, record in records:
        by_person[record[1]].append((split, record))
    return [_row(by_person[person], images_per_person) for person in _spread(list(by_person), people)]


def _row(records: list[tuple[str, Record]], count: int) -> list[tuple[str, Record]]:
    """Up to half of a row for queries, the rest for the other images."""
    queries = _spread([entry for entry in records if entry[0] == "query"], count // 2)
    return queries + _spread([entry for entry in records if entry[0] != "query"], count - len(queries))


def _spread(entries: list[T], count: int) -> list[T]:
    """At most ``count`` entries, evenly spaced."""
    if len(entries) <= count:
        return entries
    return [entries[index * len(entries) // count] for index in range(count)]


def _draw_cell(sheet: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, split: str, record: Record) -> None:
    try:
        sheet.paste(read_image(record[0]).resize((CELL_WIDTH, CELL_HEIGHT)), (left, top))
    except UnreadableImage:  # the report names it; the sheet crosses out its place
        draw.line((left, top, left + CELL_WIDTH, top + CELL_HEIGHT), fill="red", width=2)
    draw.rectangle((left, top, left + CELL_WIDTH - 1, top + CELL_HEIGHT - 1), outline=COLOURS[split], width=2)
    clothes_id = clothes_of(record)
    person = str(record[1]).rsplit("_", 1)[-1]
    camera = str(record[2]).rsplit("_", 1)[-1]
    outfit = f" o{clothes_id}" if clothes_id >= 0 else ""
    draw.text((left, top + CELL_HEIGHT), f"{split}\n{person} c{camera}{outfit}", fill=COLOURS[split], spacing=1)
