"""Counts of a split, and the table of them beside the official counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tabulate import tabulate

from fastreid_clip3d.data.records import clothes_of

Official = Mapping[str, "tuple[int | None, int | None]"]
"""(ids, items) by split; None where they are not published."""


class Count(NamedTuple):
    """The counts of a split; ``items`` are images or tracklets."""

    ids: int
    items: int
    cameras: int
    outfits: int


def count_records(records: Sequence[tuple]) -> Count:
    """Counts records, or fast-reid's plain tuples."""
    outfits = {(record[1], clothes_of(record)) for record in records}
    return Count(
        ids=len({record[1] for record in records}),
        items=len(records),
        cameras=len({record[2] for record in records}),
        outfits=sum(clothes_id >= 0 for _, clothes_id in outfits),
    )


def count_table(found: Mapping[str, Count], official: Official) -> str:
    """A table of counts with the official ones beside; "-" where there is none."""
    rows = []
    for split, count in found.items():
        official_ids, official_items = official.get(split, (None, None))
        cells = (count.ids, official_ids, count.items, official_items, count.cameras or None, count.outfits or None)
        rows.append([split, *("-" if cell is None else f"{cell:,}" for cell in cells)])
    headers = ["subset", "ids", "official", "items", "official", "cameras", "outfits"]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=["left"] + ["right"] * 6)
