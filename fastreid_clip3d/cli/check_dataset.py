"""Checks a dataset on disk without training: counts, names, every image decoded, queries that have no match."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.run_options import add_json, add_root, given_flags, not_negative
from fastreid_clip3d.errors import ClearError

EXAMPLES = """\
examples:
  # everything about one dataset below $FASTREID_DATASETS
  clip3d check-dataset LTCC

  # two datasets, only names and counts; a picture of people with the ids that were read
  clip3d check-dataset PRCC CelebReID --names-only --root /data/reid
  clip3d check-dataset CelebReID --names-only --sheet celeb.png

  # a CSV file with the columns path,pid,camid,clothes,split
  clip3d check-dataset mine/dataset.csv --json report.json

  # which names there are
  clip3d check-dataset --list

exit code: 0 nothing wrong, 1 problems found, 2 the dataset is not there
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="as in DATASETS.NAMES, or a path that ends in .csv")
    add_root(parser)
    parser.add_argument("--names-only", action="store_true", help="do not read the images")
    parser.add_argument(
        "--workers", type=not_negative, default=0, help="threads that read images (default: one per core)"
    )
    parser.add_argument(
        "--sheet", metavar="FILE", help="write a picture of some people; with several names, one file each"
    )
    add_json(parser, "the whole report, with every path,")
    parser.add_argument("--list", action="store_true", help="print the names of all datasets")


def run(arguments: argparse.Namespace) -> int:
    """Checks every named dataset; 1 if any has problems."""
    if not arguments.names and not arguments.list:
        raise ClearError("name a dataset, or use --list")
    if arguments.list and (arguments.names or given_flags(arguments, "root", "names_only", "workers", "sheet", "json")):
        raise ClearError("--list prints the names of all datasets and takes nothing else. Leave out one or the other.")
    from fastreid_clip3d.data.check_report import run_checks
    from fastreid_clip3d.data.datasets import dataset_names

    if arguments.list:
        print("\n".join(dataset_names()))
        return 0
    problems = run_checks(
        arguments.names,
        root=arguments.root,
        decode=not arguments.names_only,
        workers=arguments.workers,
        sheet=arguments.sheet,
        json_file=arguments.json,
    )
    return int(problems)
