"""Renders SynthCC, people who change their clothes: the benchmark's sets, contact sheets, and its leakage checks."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys

from fastreid_clip3d.cli.run_options import positive
from fastreid_clip3d.common.dataset_root import dataset_root
from fastreid_clip3d.errors import ClearError

EXAMPLES = """\
examples:
  # datasets/SynthCC-tiny: 600 people, 9,600 images of 128 x 64; give it again after an interruption
  clip3d render-people

  # the official benchmark: 1,400 people, 22,400 images of 256 x 128
  clip3d render-people --set SynthCC

  # skin and hair redrawn with every outfit (SynthCC-tiny-shape-only); crops as of a detector (SynthCC-tiny-crop)
  clip3d render-people --variant shape-only
  clip3d render-people --framing crop

  # one picture: people by row, outfits and cameras by column
  clip3d render-people --sheet people.jpg --people 8

  # do background, skin and hair, or colours give away who it is? Prints a table (a few minutes)
  clip3d render-people --leakage

exit code: 0 done, 1 a leakage check failed, 2 the set could not be made (the message says why)
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
    parser.add_argument(
        "--people", type=int, help="rows of the sheet (default: 6), or people of the leakage checks (default: 120)"
    )
    parser.add_argument("--leakage", action="store_true", help="print the leakage checks instead of making the set")


def run(arguments: argparse.Namespace) -> int:
    """Makes the set, the sheet or the leakage table."""
    if arguments.sheet:
        from fastreid_clip3d.synthcc.sheet import write_sheet

        write_sheet(arguments.sheet, arguments.people or 6, arguments.seed, arguments.variant, arguments.framing)
        print(arguments.sheet)
        return 0
    if arguments.leakage:
        return _leakage(arguments.people or 120, arguments.seed)
    from tqdm import tqdm

    from fastreid_clip3d.common.files import check_writable_folder
    from fastreid_clip3d.synthcc.generate import generate_set
    from fastreid_clip3d.synthcc.plan import SETS

    check_writable_folder(arguments.root, "--root")
    config = dataclasses.replace(
        SETS[arguments.set], variant=arguments.variant, framing=arguments.framing, seed=arguments.seed
    )
    with tqdm(unit="img", desc=config.folder, dynamic_ncols=True, smoothing=0.1) as bar:

        def show(done: int, total: int) -> None:
            if bar.total is None:  # what an earlier run made does not count as speed
                bar.total, bar.initial, bar.n = total, done, done
            bar.update(done - bar.n)
            bar.refresh()

        folder = generate_set(arguments.root, config, arguments.workers, show)
    print(folder)
    return 0


def _leakage(people: int, seed: int) -> int:
    """Prints the leakage checks, which are part of the checkout; 1 if one of them failed."""
    try:
        leakage = importlib.import_module("tools.study.leakage")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("tools"):
            raise
        raise ClearError(
            "--leakage: the checks are in the repository, not in the installed package. In a checkout, run "
            "`python -m fastreid_clip3d render-people --leakage`."
        ) from error
    checks = leakage.run_checks(people, seed, progress=sys.stderr.isatty())
    print(leakage.report(checks))
    return int(not all(check.passed for check in checks))
