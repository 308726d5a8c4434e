#!/usr/bin/env python
"""Copies a dataset's folder with blurred faces, as for Celeb-reID-blur; offline, resumable, the source stays as it
is."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # makes datasets/Celeb-reID-blur, which the dataset CelebReIDBlur reads; again to go on after an interruption
  python tools/blur_faces.py datasets/Celeb-reID

  # another place; find more faces, and more of what is none
  python tools/blur_faces.py datasets/Celeb-reID-light /data/Celeb-reID-light-blur --threshold 0.2

The images without a found face are those with a 0 in TARGET/blur_faces.csv.
exit code: 0 done, 1 some images could not be read and are not in the copy, 2 nothing could be done
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="the dataset's folder")
    parser.add_argument("target", nargs="?", help="the copy (default: the source's name with -blur behind it)")
    parser.add_argument("--threshold", type=float, default=0.3, help="least score of a face, 0..1 (default: 0.3)")
    parser.add_argument(
        "--margin", type=float, default=0.15, help="enlarges a box by this share on each side (default: 0.15)"
    )
    parser.add_argument(
        "--strength", type=float, default=0.25, help="of the blur, as a share of the face's size (default: 0.25)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    from fastreid_clip3d.data.blur_faces import BlurSettings, blur_folder
    from fastreid_clip3d.data.face_detector import FaceDetector

    parsed = parse_arguments(arguments)
    settings = BlurSettings(parsed.threshold, parsed.margin, parsed.strength)
    target = parsed.target or f"{os.path.abspath(parsed.source)}-blur"
    report = blur_folder(parsed.source, target, FaceDetector(parsed.threshold), settings, progress=sys.stderr.isatty())
    print(report.summary(target))
    return int(bool(report.unreadable))


if __name__ == "__main__":
    run_tool(main)
