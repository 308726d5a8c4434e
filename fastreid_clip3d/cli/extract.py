#!/usr/bin/env python
"""Features of your own pictures: one L2-normalised vector for each picture or tracklet, into an npz or parquet file."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import ClearError, run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # a folder with all folders in it
  python tools/extract_features.py datasets/demo/SynthCC-tiny/query --model logs/demo/clip3d --output query.npz

  # files, globs and lists (.txt, one path a line); an exported student
  python tools/extract_features.py 'crops/**/*.jpg' more.txt --model student.onnx --output crops.npz

  # a folder of frames is one entry
  python tools/extract_features.py tracklets --tracklets --model logs/demo/clip3d --output tracklets.parquet

FILE.npz holds features (float32 [N, d']), paths (text [N]) and fingerprint (of the model). After an interruption the
same command goes on: what lies in FILE.partial is kept for pictures that have not changed. If the model has changed,
it starts anew.

exit code: 0 done, if with some pictures left out; 1 no picture could be read, or with --strict any; 2 an error
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders, globs, or .txt lists of these")
    parser.add_argument("--model", required=True, metavar="RUN", help="run folder, checkpoint or .onnx file")
    parser.add_argument("--output", required=True, metavar="FILE", help="FILE.npz or FILE.parquet")
    parser.add_argument("--tracklets", action="store_true", help="each folder of images, and each list, is one entry")
    parser.add_argument("--batch-size", type=int, default=64, help="images at once (default: 64)")
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if any picture could not be read")
    parser.add_argument("--json", action="store_true", help="print the summary as json")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    import json

    from fastreid_clip3d.inference import load_model
    from fastreid_clip3d.inference.collection import extract_to_file
    from fastreid_clip3d.inference.features_writer import check_output
    from fastreid_clip3d.inference.pictures import list_images

    parsed = parse_arguments(arguments)
    if parsed.batch_size < 1:
        raise ClearError(f"--batch-size is {parsed.batch_size}; it must be at least 1.")
    output = check_output(parsed.output)
    entries = list_images(parsed.images, parsed.tracklets)
    if not entries:
        raise ClearError(f"{' '.join(parsed.images)}: no images there ({entries.passed_over} other files passed over).")
    model = load_model(parsed.model, parsed.device)
    summary = extract_to_file(
        model, entries, output, parsed.batch_size, parsed.tracklets, progress=not parsed.json and sys.stderr.isatty()
    )
    if parsed.json:
        print(json.dumps({**summary.as_dict(), "passed_over": entries.passed_over}, indent=2))
    else:
        _tell(summary, entries.passed_over, model.feature_dim)
    return int(summary.written == 0 or (parsed.strict and bool(summary.unreadable)))


def _tell(summary, passed_over: int, feature_dim: int) -> None:
    if summary.started_over:
        print(f"The interrupted run's features are not used: {summary.started_over}.")
    reused = f", {summary.reused} of them from the interrupted run" if summary.reused else ""
    print(f"{summary.written} of {summary.entries} entries have a feature of {feature_dim} numbers{reused}.")
    if passed_over:
        print(f"{passed_over} files of the folders are no images by their ending.")
    print(f"Written to {summary.output}." if summary.output else "Nothing is written.")
    if summary.unreadable:
        print(f"Not read, {len(summary.unreadable)}:", file=sys.stderr)
        for name, reason in summary.unreadable:
            print(f"  {reason if reason.startswith(name) else f'{name}: {reason}'}", file=sys.stderr)


if __name__ == "__main__":
    run_tool(main)
