"""Prints what this machine has and lacks: versions, CUDA devices, libraries, folders. For reports and first aid."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.run_options import add_json
from fastreid_clip3d.registration import register

EXAMPLES = """\
examples:
  # what is there, what is missing and what that costs; paste it into a report
  clip3d doctor
  clip3d doctor --json

exit code: 0 training can start, 1 something is missing without which nothing works
"""

NEEDS_FASTREID = False
"""It also runs where fast-reid is missing, and says so."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flag."""
    add_json(parser, "the report")


def run(arguments: argparse.Namespace) -> int:
    """Prints the report."""
    from fastreid_clip3d.common.json_file import check_json, write_json
    from fastreid_clip3d.common.machine_report import (
        NOTHING_WORKS,
        machine_report,
        report_text,
        with_registration,
    )

    check_json(arguments.json)
    report = with_registration(machine_report(), register)
    if arguments.json:
        write_json(arguments.json, report)
    if arguments.json != "-":
        print(report_text(report))
    return int(any(one["costs"] == NOTHING_WORKS for one in report["missing"]))
