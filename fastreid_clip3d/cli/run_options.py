"""The flags that several verbs share: one name and one meaning for each."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """The type of a flag that takes a whole number of 1 or more."""
    return _whole_number(text, 1)


def not_negative(text: str) -> int:
    """The type of a flag that takes a whole number of 0 or more."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of {least} or more")
    return number


def add_allow_imports(parser: argparse.ArgumentParser) -> None:
    """Adds ``--allow-imports``; :func:`fastreid_clip3d.cli.run_verb` acts on it."""
    parser.add_argument(
        "--allow-imports",
        action="store_true",
        help="import the Python modules that the run's config names (IMPORTS); only for runs that you trust",
    )


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds ``--json [FILE]``; without FILE its value is ``-``, standard output."""
    parser.add_argument(
        "--json", nargs="?", const="-", default="", metavar="FILE",
        help=f"write {what} as json to FILE.json, or without FILE to standard output instead of the text",
    )  # fmt: skip


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Adds ``--batch-size``. argparse takes the older ``--batch`` as its abbreviation."""
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images at once (default: 64)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``; "" is CUDA where there is a device, else the CPU."""
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:N (default: cuda where there is a device)")


def add_root(parser: argparse.ArgumentParser) -> None:
    """Adds ``--root``."""
    parser.add_argument("--root", default="", help="the datasets' folder (default: $FASTREID_DATASETS, or ./datasets)")


def add_data(parser: argparse.ArgumentParser, help: str, *older: str, required: bool = False) -> None:
    """Adds ``--data DATASET``. The older flags of the same meaning are still taken; the help does not show them."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument("--data", default="", metavar="DATASET", help=help)
    for flag in older:
        group.add_argument(flag, dest="data", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
