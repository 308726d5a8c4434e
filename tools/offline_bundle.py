#!/usr/bin/env python
"""Collects what a GPU machine without a network lacks into one folder: wheels, package, tests, data, install.sh."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import OPTIONAL, run_tool

EXAMPLES = """\
examples:
  # for a usual research machine with torch
  python tools/offline_bundle.py --output bundle

  # for what one machine has: there, `python3 -m pip list --format=freeze > machine.txt`
  python tools/offline_bundle.py --python 3.12 --platform manylinux_2_28_x86_64 --machine machine.txt --output bundle

  # with the rendered benchmark and bodies, and PyTorch3D's rasteriser
  python tools/offline_bundle.py --output bundle --with pytorch3d \\
      --data demo/SynthCC-tiny demo/SyntheticBodies demo/mobilenetv2_imagenet.pth

On the machine: `sh bundle/install.sh FOLDER`, then the two lines that it prints. It installs into FOLDER alone.
"""

MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to write; it must not exist yet")
    parser.add_argument("--python", default="3.12", metavar="3.N", help="the machine's Python (3.12)")
    parser.add_argument(
        "--platform", default="manylinux_2_28_x86_64", help="the machine's wheel tag; 2_28 is its glibc (%(default)s)"
    )
    parser.add_argument(
        "--machine", metavar="FILE", help="what it has, by `pip list --format=freeze` (default: a usual selection)"
    )
    parser.add_argument(
        "--with",
        nargs="+",
        default=[],
        dest="wanted",
        metavar="NAME",
        help=f"optional libraries: {', '.join(OPTIONAL)}",
    )
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="NAME", help="datasets, as folders below FASTREID_DATASETS or paths"
    )
    parser.add_argument("--weights", nargs="+", default=[], metavar="FILE", help="weights of students or teachers")
    parser.add_argument("--limit", type=float, default=64, metavar="MIB", help="exit code 1 if it is larger (64)")
    arguments = parser.parse_args()

    from tools.offline.bundle import make_bundle
    from tools.offline.requirements import STOCK, read_machine

    machine = read_machine(Path(arguments.machine)) if arguments.machine else STOCK
    sizes = make_bundle(
        Path(arguments.output),
        python=arguments.python,
        platform=arguments.platform,
        machine=machine,
        wanted=arguments.wanted,
        data=arguments.data,
        weights=arguments.weights,
    )
    for name, size in sizes.items():
        print(f"{size / MIB:8.2f} MiB  {name}")
    total = sum(sizes.values()) / MIB
    verdict = "" if total <= arguments.limit else f", more than --limit {arguments.limit:g}"
    print(f"{total:8.2f} MiB  in all{verdict}\n\non the machine: sh {arguments.output}/install.sh FOLDER")
    return int(bool(verdict))


if __name__ == "__main__":
    run_tool(main)
