#!/usr/bin/env python
"""Checks a dataset on disk without training: counts, names, every image decoded, queries that have no match."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # one dataset below $FASTREID_DATASETS, everything
  python tools/check_dataset.py LTCC

  # two, only their names and counts; a picture of people and ids as they were read
  python tools/check_dataset.py PRCC CelebReID --names-only --root /data/reid
  python tools/check_dataset.py CelebReID --names-only --sheet celeb.png

  # a CSV file with the columns path,pid,camid,clothes,split
  python tools/check_dataset.py mine/dataset.csv --json report.json

  # which names there are
  python tools/check_dataset.py --list

exit code: 0 nothing wrong, 1 problems found, 2 the dataset is not there
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="as in DATASETS.NAMES, or a path that ends in .csv")
    parser.add_argument("--root", default="", help="the datasets' folder (default: $FASTREID_DATASETS, or ./datasets)")
    parser.add_argument("--names-only", action="store_true", help="do not read the images")
    parser.add_argument("--workers", type=int, default=0, help="threads that read images (default: one a core)")
    parser.add_argument(
        "--sheet", metavar="FILE", help="write a picture of some people; with several names, one file each"
    )
    parser.add_argument("--json", metavar="FILE", help="write the whole report, with every path ('-' for the screen)")
    parser.add_argument("--list", action="store_true", help="print the names of all datasets and end")
    parsed = parser.parse_args(arguments)
    if not parsed.names and not parsed.list:
        parser.error("name a dataset, or use --list")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    from fastreid_clip3d.data.check_report import run_checks

    return run_checks(parse_arguments(arguments))


if __name__ == "__main__":
    run_tool(main)
