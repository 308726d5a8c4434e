#!/usr/bin/env python
"""Makes one self-contained HTML page about a run: settings, curves, scores by protocol, pictures."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool  # noqa: E402

EXAMPLES = """\
examples:
  python tools/report.py logs/demo/clip3d                                  writes logs/demo/clip3d/report.html
  python tools/report.py logs/demo/clip3d --compare logs/demo/baseline --output clip3d.html
  python tools/report.py logs/demo/clip3d --data held_out --images people/   bodies and people of your own in the pictures
  python tools/report.py logs/celeb/clip3d --no-pictures                   without loading the model

The page needs no network and no other file. A run that was killed gets a page too: what is missing is named on it.
Pictures by ranking and embedding need the features of an evaluation (TEST.EVALUATION.SAVE_FEATURES True).
exit code: 0 written, 2 an error
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="run folder: the OUTPUT_DIR of a training")
    parser.add_argument("--compare", default="", metavar="RUN", help="another run in the same curves and tables")
    parser.add_argument("--output", default="", metavar="FILE", help="default: report.html in the run folder")
    parser.add_argument(
        "--data", default="", metavar="FOLDER", help="synthetic bodies to predict (default: the training's)"
    )
    parser.add_argument("--images", nargs="+", default=[], metavar="IMAGE", help="people for the transport plans")
    parser.add_argument(
        "--dataset", default="", help="whose features are drawn, where the run was tested on several sets"
    )
    parser.add_argument("--no-pictures", action="store_true", help="settings, curves and tables only")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    from fastreid_clip3d.visualization.report.write import write_report

    path, pictures = write_report(
        options.run,
        options.output,
        options.compare,
        options.data,
        options.images,
        options.dataset,
        not options.no_pictures,
    )
    for picture in pictures:
        if not picture.data:
            print(f"not drawn, {picture.title}: {picture.caption}", file=sys.stderr)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    run_tool(main)
