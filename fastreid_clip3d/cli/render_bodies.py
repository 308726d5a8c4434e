#!/usr/bin/env python3
"""Renders the synthetic bodies that the third design trains on: grey pictures with true shapes and descriptors."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool  # noqa: E402

EXAMPLES = """examples:
  python tools/render_bodies.py                                        the paper's 1,000 bodies in 10 poses each
  python tools/render_bodies.py --bodies 40 --poses-per-body 5 --size 128 64 --output datasets/SyntheticBodies-tiny
  python tools/render_bodies.py --body-model ~/smpl --poses my_poses.npz --framing fixed
  python tools/render_bodies.py --sheet bodies.png                     pictures to look at instead of a set

A run that was stopped goes on where it stopped when the same command is given again.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument(
        "--output",
        default=None,
        help="folder of the set (SyntheticBodies in $FASTREID_DATASETS, or in datasets/ where that is not set)",
    )
    result.add_argument("--bodies", type=int, default=1000, help="number of bodies, half of them female (1000)")
    result.add_argument("--poses-per-body", type=int, default=10, help="pictures of each body (10)")
    result.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(256, 128),
        metavar=("H", "W"),
        help="size of a picture in pixels (256 128)",
    )
    result.add_argument("--seed", type=int, default=0, help="seed of shapes, poses, cameras and lights (0)")
    result.add_argument(
        "--framing",
        choices=("crop", "fixed"),
        default="crop",
        help="crop: the body fills the picture, as a detector cuts it; fixed: one scale, so that stature shows (crop)",
    )
    result.add_argument("--body-model", default="", help="folder or file of SMPL models (the embedded ones)")
    result.add_argument("--poses", default="", help="axis-angle poses [K, 72], .npy or .npz (100 built-in poses)")
    result.add_argument("--workers", type=int, default=0, help="threads (one a core)")
    result.add_argument(
        "--sheet",
        metavar="FILE",
        default="",
        help="draw contact sheets of shape directions, descriptors at both extremes and poses into FILE, and no set",
    )
    result.add_argument("--quiet", action="store_true", help="no progress bar")
    return result


def main(command_line: list[str] | None = None) -> None:
    """Parses the command line and makes the set or the sheet."""
    arguments = parser().parse_args(command_line)
    if arguments.sheet:
        from fastreid_clip3d.body.sheets import write_sheet

        write_sheet(arguments.sheet, body_model=arguments.body_model, poses=arguments.poses, seed=arguments.seed)
        print(f"wrote {arguments.sheet}")
        return
    from fastreid_clip3d.body.synthetic_writer import SyntheticSet, SyntheticSettings

    output = arguments.output or Path(os.getenv("FASTREID_DATASETS", "datasets")) / "SyntheticBodies"
    settings = SyntheticSettings(
        bodies=arguments.bodies,
        poses_per_body=arguments.poses_per_body,
        image_size=tuple(arguments.size),
        framing=arguments.framing,
        seed=arguments.seed,
        body_model=arguments.body_model,
        poses=arguments.poses,
    )
    index = SyntheticSet(output, settings, workers=arguments.workers).make(progress=not arguments.quiet)
    print(f"{len(index)} pictures of {settings.bodies} bodies in {output}, version {index.version}")


if __name__ == "__main__":
    run_tool(main)
