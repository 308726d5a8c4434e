"""The report of ``tools/check_dataset.py`` in words, as json and as a picture."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, TextIO

from fastreid_clip3d.data.check import DatasetReport, check_dataset
from fastreid_clip3d.data.contact_sheet import save_contact_sheet
from fastreid_clip3d.data.datasets import dataset_names
from fastreid_clip3d.data.datasets.base import count_table
from fastreid_clip3d.data.datasets.listing import first_few


def run_checks(arguments: argparse.Namespace) -> int:
    """Checks every named dataset; 1 if any has problems, 0 otherwise."""
    if arguments.list:
        print("\n".join(dataset_names()))
        return 0
    screen = sys.stderr if arguments.json == "-" else sys.stdout
    reports = []
    for name in arguments.names:
        is_csv = name.lower().endswith(".csv")
        with _no_warnings_twice():
            report, splits = check_dataset(
                "CSVDataset" if is_csv else name,
                arguments.root,
                decode=not arguments.names_only,
                workers=arguments.workers,
                progress=sys.stderr.isatty(),
                **({"csv_path": name} if is_csv else {}),
            )
        report.name = name
        reports.append(report)
        print_report(report, screen)
        if arguments.sheet:
            path = sheet_path(arguments.sheet, name, len(arguments.names))
            save_contact_sheet(splits, path)
            print(f"sheet: {path}", file=screen)
    if arguments.json:
        write_json(reports, arguments.json)
    return int(any(report.problems for report in reports))


@contextmanager
def _no_warnings_twice() -> Iterator[None]:
    """What reading would warn of stands in the report, with names."""
    logger = logging.getLogger("fastreid_clip3d.data.datasets")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def sheet_path(path: str, name: str, names: int) -> Path:
    """The sheet's file; of several datasets each has its own, with the dataset's name in it."""
    file = Path(path)
    return file if names == 1 else file.with_name(f"{file.stem}-{Path(name).stem}{file.suffix}")


def write_json(reports: list[DatasetReport], path: str) -> None:
    """One json object, dataset's name -> report; "-" = standard output."""
    text = json.dumps({report.name: report.as_json() for report in reports}, indent=2, ensure_ascii=False)
    if path == "-":
        print(text)
        return
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{os.getpid()}-{file.name}")
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, file)


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
    for name, matches in report.protocols.items():
        lost = len(matches.unmatched_queries)
        tail = (
            f" ({lost:,} have no match and are not counted: {first_few(matches.unmatched_queries, 3)})" if lost else ""
        )
        ids = (
            f"; people never found: {first_few([str(pid) for pid in matches.unmatched_ids])}"
            if matches.unmatched_ids
            else ""
        )
        lines.append(f"protocol {name}: {matches.queries:,} queries{tail}{ids}")
    lines += [f"PROBLEM: {problem}" for problem in report.problems] or ["no problems"]
    print("\n".join(lines), file=screen)
