"""Copies a dataset's folder and blurs the faces in the copy, as for Celeb-reID-blur; works offline and resumes."""

from __future__ import annotations

import argparse
import os
import sys

EXAMPLES = """\
examples:
  # write datasets/Celeb-reID-blur, which the dataset CelebReIDBlur reads; give it again after an interruption
  clip3d blur-faces datasets/Celeb-reID

  # another folder; a lower threshold finds more faces, and more patches that are no faces
  clip3d blur-faces datasets/Celeb-reID-light /data/Celeb-reID-light-blur --threshold 0.2

TARGET/blur_faces.csv has a 0 beside each image in which no face was found.
exit code: 0 done, 1 some images could not be read and are not in the copy, 2 nothing could be done
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("source", help="the dataset's folder")
    parser.add_argument("target", nargs="?", help="the copy (default: the source's name and -blur)")
    parser.add_argument("--threshold", type=float, default=0.3, help="least score of a face, 0..1 (default: 0.3)")
    parser.add_argument(
        "--margin", type=float, default=0.15, help="enlarge a box by this share on each side (default: 0.15)"
    )
    parser.add_argument(
        "--strength", type=float, default=0.25, help="width of the blur, as a share of the face's size (default: 0.25)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Copies the folder; 1 if some images could not be read."""
    from fastreid_clip3d.data.blur_faces import BlurSettings, blur_folder
    from fastreid_clip3d.data.face_detector import FaceDetector

    settings = BlurSettings(arguments.threshold, arguments.margin, arguments.strength)
    target = arguments.target or f"{os.path.abspath(arguments.source)}-blur"
    detector = FaceDetector(arguments.threshold)
    report = blur_folder(arguments.source, target, detector, settings, progress=sys.stderr.isatty())
    print(report.summary(target))
    return int(bool(report.unreadable))
