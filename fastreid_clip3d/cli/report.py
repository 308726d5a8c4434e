"""Writes one self-contained HTML page about a run: settings, curves, scores by protocol, pictures."""

from __future__ import annotations

import argparse
import sys

from fastreid_clip3d.cli.run_options import add_allow_imports, add_data, add_device, given_flags
from fastreid_clip3d.errors import ClearError

EXAMPLES = """\
examples:
  clip3d report logs/demo/clip3d                                  writes logs/demo/clip3d/report.html
  clip3d report logs/demo/clip3d --compare logs/demo/baseline --output clip3d.html
  clip3d report logs/demo/clip3d --bodies held_out --images people/   draw your own bodies and people
  clip3d report logs/celeb/clip3d --no-pictures                   without loading the model

The page needs no network and no other file. A run that was killed gets a page too, which names what is missing.
The ranking and embedding pictures need the features of an evaluation (TEST.EVALUATION.SAVE_FEATURES True).
exit code: 0 written, 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("run", metavar="RUN", help="run folder: the OUTPUT_DIR of a training")
    add_allow_imports(parser)
    parser.add_argument("--compare", default="", metavar="RUN", help="another run in the same curves and tables")
    parser.add_argument("--output", default="", metavar="FILE", help="default: report.html in the run folder")
    parser.add_argument(
        "--bodies", default="", metavar="FOLDER", help="synthetic bodies to predict (default: the training's)"
    )
    parser.add_argument("--images", nargs="+", default=[], metavar="IMAGE", help="people for the transport plans")
    add_data(parser, "the test set whose features are drawn, where the run has several", "--dataset")
    add_device(parser)
    parser.add_argument("--no-pictures", action="store_true", help="settings, curves and tables only")


def run(arguments: argparse.Namespace) -> int:
    """Writes the page and names the pictures that could not be drawn."""
    if arguments.no_pictures and (names := given_flags(arguments, "bodies", "images", "data", "device")):
        raise ClearError(f"--no-pictures draws none, so {names} would have no effect. Leave one of them out.")
    from fastreid_clip3d.visualization.report.write import write_report

    path, pictures = write_report(
        arguments.run,
        arguments.output,
        arguments.compare,
        arguments.bodies,
        arguments.images,
        arguments.data,
        not arguments.no_pictures,
        arguments.device,
    )
    for picture in pictures:
        if not picture.data:
            print(f"not drawn, {picture.title}: {picture.caption}", file=sys.stderr)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")
    return 0
