"""Renders SynthCC, people who change their clothes: the benchmark's sets and contact sheets."""

from __future__ import annotations

import argparse
import dataclasses
import os

from fastreid_clip3d.cli.run_options import positive
from fastreid_clip3d.common.dataset_root import dataset_root

EXAMPLES = """\
examples:
  # datasets/SynthCC-tiny: 800 people, 12,800 images of 128 x 64; give it again after an interruption
  clip3d render-people

  # the official benchmark: 1,400 people, 22,400 images of 256 x 128
  clip3d render-people --set SynthCC

  # skin and hair redrawn with every outfit (SynthCC-tiny-shape-only); crops as of a detector (SynthCC-tiny-crop)
  clip3d render-people --variant shape-only
  clip3d render-people --framing crop

  # one picture: people by row, outfits and cameras by column
  clip3d render-people --sheet people.jpg --people 8

exit code: 0 done, 2 the set could not be made (the message says why)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--set", default="SynthCC-tiny", choices=("SynthCC", "SynthCC-tiny"), help="default: SynthCC-tiny"
    )
    parser.add_argument(
        "--variant",
        default="natural",
        choices=("natural", "shape-only"),
        help="natural: skin and hair stay a person's own; shape-only: redrawn with every outfit (default: natural)",
    )
    parser.add_argument(
        "--framing",
        default="fixed",
        choices=("fixed", "crop"),
        help="fixed: a person's height shows, as under a calibrated camera; crop: as a detector cuts (default: fixed)",
    )
    parser.add_argument(
        "--root",
        default=dataset_root(),
        help="the datasets' folder (default: FASTREID_DATASETS, or ./datasets)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=min(os.cpu_count() or 1, 8),
        help="processes; do not change the images (default: one per core, at most 8)",
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed is another benchmark (default: 1)")
    parser.add_argument("--sheet", metavar="FILE", help="write a contact sheet instead of the set")
    parser.add_argument("--people", type=positive, default=6, help="rows of the sheet (default: 6)")


def run(arguments: argparse.Namespace) -> int:
    """Makes the set or the sheet."""
    if arguments.sheet:
        from fastreid_clip3d.synthcc.sheet import write_sheet

        write_sheet(arguments.sheet, arguments.people, arguments.seed, arguments.variant, arguments.framing)
        print(arguments.sheet)
        return 0
    from fastreid_clip3d.common.files import check_writable_folder
    from fastreid_clip3d.synthcc.plan import SETS
    from fastreid_clip3d.synthcc.progress import generate_with_bar

    check_writable_folder(arguments.root, "--root")
    config = dataclasses.replace(
        SETS[arguments.set], variant=arguments.variant, framing=arguments.framing, seed=arguments.seed
    )
    print(generate_with_bar(arguments.root, config, arguments.workers))
    return 0
