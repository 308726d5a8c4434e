#!/usr/bin/env python
"""Renders SynthCC, people who change their clothes: the benchmark's sets, contact sheets, and its leakage checks."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # datasets/SynthCC-tiny: 600 people, 9,600 images of 128 x 64; again to go on after an interruption
  python tools/render_people.py

  # the official benchmark: 1,400 people, 22,400 images of 256 x 128
  python tools/render_people.py --set SynthCC

  # skin and hair redrawn with every outfit (SynthCC-tiny-shape-only); boxes as a detector cuts them (SynthCC-tiny-crop)
  python tools/render_people.py --variant shape-only
  python tools/render_people.py --framing crop

  # one picture: people by row, outfits and cameras by column
  python tools/render_people.py --sheet people.jpg --people 8

  # can background, skin and hair, or colours tell who it is? prints a table (a few minutes)
  python tools/render_people.py --leakage

exit code: 0 done, 1 a leakage check failed, 2 the set could not be made (the message says why)
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
        default=os.getenv("FASTREID_DATASETS", "datasets"),
        help="the datasets' folder (default: FASTREID_DATASETS, or ./datasets)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(os.cpu_count() or 1, 8),
        help="processes; do not change the images (default: one a core)",
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed is another benchmark (default: 1)")
    parser.add_argument("--sheet", metavar="FILE", help="write a contact sheet instead of the set")
    parser.add_argument(
        "--people", type=int, help="rows of the sheet (default: 6), or people of the leakage checks (default: 120)"
    )
    parser.add_argument("--leakage", action="store_true", help="print the leakage checks instead of making the set")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    if parsed.sheet:
        from fastreid_clip3d.synthcc.sheet import write_sheet

        write_sheet(parsed.sheet, parsed.people or 6, parsed.seed, parsed.variant, parsed.framing)
        print(parsed.sheet)
        return 0
    if parsed.leakage:
        from tools.study.leakage import report, run_checks

        checks = run_checks(parsed.people or 120, parsed.seed, progress=sys.stderr.isatty())
        print(report(checks))
        return int(not all(check.passed for check in checks))
    from tqdm import tqdm

    from fastreid_clip3d.synthcc.generate import generate_set
    from fastreid_clip3d.synthcc.plan import SETS

    config = dataclasses.replace(SETS[parsed.set], variant=parsed.variant, framing=parsed.framing, seed=parsed.seed)
    with tqdm(unit="img", desc=config.folder, dynamic_ncols=True, smoothing=0.1) as bar:

        def show(done: int, total: int) -> None:
            if bar.total is None:  # what an earlier run made does not count as speed
                bar.total, bar.initial, bar.n = total, done, done
            bar.update(done - bar.n)
            bar.refresh()

        folder = generate_set(parsed.root, config, parsed.workers, show)
    print(folder)
    return 0


if __name__ == "__main__":
    run_tool(main)
