"""Computes features of pictures or of a dataset: one L2-normalised vector per picture or tracklet."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fastreid_clip3d.cli.run_options import (
    add_batch_size,
    add_data,
    add_device,
    add_json,
    add_model,
    add_root,
    given_flags,
    model_source,
)
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError

if TYPE_CHECKING:
    from fastreid_clip3d.inference.collection import Summary

EXAMPLES = """\
examples:
  # a folder with all folders in it
  clip3d extract datasets/demo/SynthCC-tiny/query --model logs/demo/clip3d --output query.npz

  # files, globs and lists (.txt, one path a line); an exported student
  clip3d extract 'crops/**/*.jpg' more.txt --model student.onnx --output crops.npz

  # a network of another tool; an image tower that was never trained on people
  clip3d extract crops --model osnet.onnx --size 256 128 --output crops.npz
  clip3d extract crops --model open_clip:ViT-B-32/openai --output crops.npz

  # a folder of frames is one entry
  clip3d extract tracklets --tracklets --model logs/demo/clip3d --output tracklets.parquet

  # query and gallery of a dataset with their ids, for `clip3d evaluate --features ltcc.npz`; a CSV file works, too
  clip3d extract --data LTCC --model logs/demo/clip3d --output ltcc.npz

FILE.npz holds features (float32 [N, d']), paths (text [N]) and the model's fingerprint; numpy.load reads it. After an
interruption the same command goes on: it keeps the features in FILE.partial of pictures that have not changed. With
another model it starts anew. With --data the file holds features and ids of query and gallery, and an interrupted
command starts anew.

exit code: 0 done, 1 no picture could be read, or with --strict: some could not; 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("images", nargs="*", metavar="IMAGES", help="files, folders, globs, or .txt lists of these")
    add_data(parser, "the query and gallery of a dataset or CSV file, in place of IMAGES")
    add_root(parser)
    add_model(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="FILE.npz or FILE.parquet")
    parser.add_argument("--tracklets", action="store_true", help="each folder of images and each list is one entry")
    add_batch_size(parser)
    add_device(parser)
    parser.add_argument("--strict", action="store_true", help="exit code 1 if any picture could not be read")
    add_json(parser, "the summary")


def run(arguments: argparse.Namespace) -> int:
    """Extracts the features and reports what could not be read."""
    if bool(arguments.images) == bool(arguments.data):
        raise ClearError("Give either IMAGES or --data DATASET.")
    if arguments.data and (names := given_flags(arguments, "tracklets", "strict", "json")):
        raise ClearError(f"{names}: only with IMAGES, not with --data. Leave it out.")
    if arguments.images and arguments.root:
        raise ClearError("--root is the folder of the dataset that --data names. Leave it out with IMAGES.")
    if arguments.data:
        return _extract_dataset(arguments)
    from fastreid_clip3d.common.json_file import check_json, write_json
    from fastreid_clip3d.inference.collection import extract_to_file
    from fastreid_clip3d.inference.features_writer import check_output
    from fastreid_clip3d.inference.pictures import list_images

    check_json(arguments.json)
    output = check_output(arguments.output)
    entries = list_images(arguments.images, arguments.tracklets)
    if not entries:
        raise ClearError(
            f"{' '.join(arguments.images)}: no images there ({entries.passed_over} other files passed over)."
        )
    model = model_source(arguments).load(arguments.device)
    progress = arguments.json != "-" and sys.stderr.isatty()
    summary = extract_to_file(model, entries, output, arguments.batch_size, arguments.tracklets, progress)
    if arguments.json:
        write_json(arguments.json, {**summary.as_dict(), "passed_over": entries.passed_over})
    if arguments.json != "-":
        _print_summary(summary, entries.passed_over, model.feature_dim)
    return int(summary.written == 0 or (arguments.strict and bool(summary.unreadable)))


def _extract_dataset(arguments: argparse.Namespace) -> int:
    from fastreid_clip3d.common.files import check_writable
    from fastreid_clip3d.evaluation.features_file import write_features
    from fastreid_clip3d.inference.dataset_features import dataset_features

    output = check_writable(arguments.output, (".npz",))
    model = model_source(arguments).load(arguments.device)
    query, gallery, _ = dataset_features(
        model, arguments.data, arguments.batch_size, progress=sys.stderr.isatty(), root=arguments.root
    )
    write_features(output, query, gallery)
    shown = printable(str(output))
    print(
        f"{len(query)} query and {len(gallery)} gallery items have a feature of {model.feature_dim} numbers.\n"
        f"Written to {shown}. Score it with: clip3d evaluate --features {shown}"
    )
    return 0


def _print_summary(summary: Summary, passed_over: int, feature_dim: int) -> None:
    if summary.started_over:
        print(f"The interrupted run's features are not used: {summary.started_over}.")
    reused = f", {summary.reused} of them from the interrupted run" if summary.reused else ""
    print(f"{summary.written} of {summary.entries} entries have a feature of {feature_dim} numbers{reused}.")
    if passed_over:
        print(f"{passed_over} files in the folders do not have the ending of an image.")
    print(f"Written to {printable(str(summary.output))}." if summary.output else "Nothing is written.")
    if summary.unreadable:
        print(f"Not read, {len(summary.unreadable)}:", file=sys.stderr)
        for name, reason in summary.unreadable:
            shown = printable(name)
            print(f"  {reason if reason.startswith(shown) else f'{shown}: {reason}'}", file=sys.stderr)
