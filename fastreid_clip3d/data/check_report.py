"""The report of ``clip3d check-dataset`` in words, as json and as a picture."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fastreid_clip3d.common.files import check_writable
from fastreid_clip3d.common.images import IMAGE_ENDINGS
from fastreid_clip3d.common.json_file import check_json, write_json
from fastreid_clip3d.common.names import as_utf8
from fastreid_clip3d.data.check import DatasetReport, check_dataset
from fastreid_clip3d.data.contact_sheet import save_contact_sheet
from fastreid_clip3d.data.datasets.counts import count_table
from fastreid_clip3d.data.datasets.listing import first_few


def run_checks(
    names: Sequence[str],
    root: str = "",
    decode: bool = True,
    workers: int = 0,
    sheet: str | None = None,
    json_file: str | None = None,
) -> bool:
    """Checks every named dataset and prints the reports; True if any has problems.

    Args:
        names: as in DATASETS.NAMES, or paths of CSV files.
        root, decode, workers: as in :func:`check_dataset`.
        sheet: file for a picture of some people; each of several datasets has its own.
        json_file: file for the whole report; "-": standard output, and the text goes to standard error.
    """
    screen = sys.stderr if json_file == "-" else sys.stdout
    if sheet:
        check_writable(sheet, IMAGE_ENDINGS)
    check_json(json_file or "")
    reports = []
    for name in names:
        with _no_warnings_twice():
            report, splits = check_dataset(name, root, decode, workers, progress=sys.stderr.isatty())
        reports.append(report)
        print_report(report, screen)
        if sheet:
            path = sheet_path(sheet, name, len(names))
            save_contact_sheet(splits, path)
            print(f"sheet: {path}", file=screen)
    if json_file:
        write_json(json_file, {report.name: report.as_json() for report in reports})
    return any(report.problems for report in reports)


@contextmanager
def _no_warnings_twice() -> Iterator[None]:
    """Turns off the warnings of reading, since the report has them."""
    logger = logging.getLogger("fastreid_clip3d.data.datasets")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def sheet_path(path: str, name: str, names: int) -> Path:
    """The sheet's file; each of several datasets has its own, with the dataset's name in it."""
    file = Path(path)
    return file if names == 1 else file.with_name(f"{file.stem}-{Path(name).stem}{file.suffix}")


def print_report(report: DatasetReport, screen: TextIO) -> None:
    """The report in words: counts, notes, protocols, problems."""
    lines = [f"\n{report.name}", count_table(report.counts, report.official_counts)]
    if report.images_read:
        lines.append(f"{report.images_read:,} images decoded, {len(report.unreadable):,} unreadable")
    for what, names in (("junk images left out", report.junk), ("other files ignored", report.ignored)):
        if names:
            lines.append(f"note: {len(names):,} {what}: {first_few([os.path.basename(name) for name in names])}")
    for what, ids in (("query", report.query_only_ids), ("gallery", report.gallery_only_ids)):
        if ids:
            lines.append(f"note: {len(ids):,} people are in {what} only: {first_few([str(pid) for pid in ids])}")
    lines += [f"note: {note}" for note in report.notes]
    for name, matches in report.protocols.items():
        line = f"protocol {name}: {matches.queries:,} queries"
        if matches.unmatched_queries:
            line += (
                f" ({len(matches.unmatched_queries):,} have no match and are not counted: "
                f"{first_few(matches.unmatched_queries, 3)})"
            )
        if matches.unmatched_ids:
            line += f"; people of whom no query has a match: {first_few([str(pid) for pid in matches.unmatched_ids])}"
        lines.append(line)
    lines += [f"PROBLEM: {problem}" for problem in report.problems] or ["no problems"]
    print(as_utf8("\n".join(lines)), file=screen)
