"""Computes features of your own pictures: one L2-normalised vector per picture or tracklet, as npz or parquet."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from fastreid_clip3d.cli.run_options import add_allow_imports
from fastreid_clip3d.errors import ClearError

if TYPE_CHECKING:
    from fastreid_clip3d.inference.collection import Summary

EXAMPLES = """\
examples:
  # a folder with all folders in it
  clip3d extract datasets/demo/SynthCC-tiny/query --model logs/demo/clip3d --output query.npz

  # files, globs and lists (.txt, one path a line); an exported student
  clip3d extract 'crops/**/*.jpg' more.txt --model student.onnx --output crops.npz

  # a folder of frames is one entry
  clip3d extract tracklets --tracklets --model logs/demo/clip3d --output tracklets.parquet

FILE.npz holds features (float32 [N, d']), paths (text [N]) and the model's fingerprint. After an interruption the same
command goes on: it keeps what FILE.partial holds for pictures that have not changed. With another model it starts anew.

exit code: 0 done, 1 no picture could be read, or with --strict: some could not; 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders, globs, or .txt lists of these")
    parser.add_argument("--model", required=True, metavar="RUN", help="run folder, checkpoint or .onnx file")
    add_allow_imports(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="FILE.npz or FILE.parquet")
    parser.add_argument("--tracklets", action="store_true", help="each folder of images and each list is one entry")
    parser.add_argument("--batch-size", type=int, default=64, help="images at once (default: 64)")
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if any picture could not be read")
    parser.add_argument("--json", action="store_true", help="print the summary as json")


def run(arguments: argparse.Namespace) -> int:
    """Extracts the features and reports what could not be read."""
    from fastreid_clip3d.inference import load_model
    from fastreid_clip3d.inference.collection import extract_to_file
    from fastreid_clip3d.inference.features_writer import check_output
    from fastreid_clip3d.inference.pictures import list_images

    if arguments.batch_size < 1:
        raise ClearError(f"--batch-size is {arguments.batch_size}; it must be at least 1.")
    output = check_output(arguments.output)
    entries = list_images(arguments.images, arguments.tracklets)
    if not entries:
        raise ClearError(
            f"{' '.join(arguments.images)}: no images there ({entries.passed_over} other files passed over)."
        )
    model = load_model(arguments.model, arguments.device)
    progress = not arguments.json and sys.stderr.isatty()
    summary = extract_to_file(model, entries, output, arguments.batch_size, arguments.tracklets, progress)
    if arguments.json:
        print(json.dumps({**summary.as_dict(), "passed_over": entries.passed_over}, indent=2))
    else:
        _print_summary(summary, entries.passed_over, model.feature_dim)
    return int(summary.written == 0 or (arguments.strict and bool(summary.unreadable)))


def _print_summary(summary: Summary, passed_over: int, feature_dim: int) -> None:
    if summary.started_over:
        print(f"The interrupted run's features are not used: {summary.started_over}.")
    reused = f", {summary.reused} of them from the interrupted run" if summary.reused else ""
    print(f"{summary.written} of {summary.entries} entries have a feature of {feature_dim} numbers{reused}.")
    if passed_over:
        print(f"{passed_over} files in the folders do not have the ending of an image.")
    print(f"Written to {summary.output}." if summary.output else "Nothing is written.")
    if summary.unreadable:
        print(f"Not read, {len(summary.unreadable)}:", file=sys.stderr)
        for name, reason in summary.unreadable:
            print(f"  {reason if reason.startswith(name) else f'{name}: {reason}'}", file=sys.stderr)
