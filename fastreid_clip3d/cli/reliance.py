"""Measures what a model matches: clothes, skin and hair, or body shape."""

from __future__ import annotations

import argparse
import os
import sys

from fastreid_clip3d.cli.run_options import (
    add_batch_size,
    add_device,
    add_json,
    add_model,
    add_root,
    model_source,
    not_negative,
    positive,
)

EXAMPLES = """\
examples:
  # a run; the rendered people lie below datasets/demo, or are rendered there
  clip3d reliance --model logs/demo/clip3d --root datasets/demo

  # a network that was never trained on people; its first 50 people only
  clip3d reliance --model open_clip:embedded --root datasets/demo --people 50 --output clothes_or_shape

It needs both renderings of the same people, SynthCC-tiny and SynthCC-tiny-shape-only. It renders what is missing, which
takes about five minutes each on two free cores; after an interruption the same command goes on.
It writes report.json, table.md and reliance.png. docs/reliance.md explains them.
exit code: 0 measured, 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    add_model(parser)
    add_root(parser)
    parser.add_argument("--output", default="", metavar="FOLDER", help="default: reliance in the run folder")
    parser.add_argument(
        "--people", type=positive, default=0, metavar="N", help="only the first N test people (default: all 300)"
    )
    parser.add_argument("--seed", type=not_negative, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument(
        "--workers",
        type=positive,
        default=min(os.cpu_count() or 1, 8),
        help="processes that render a missing set (default: one per core, at most 8)",
    )
    add_batch_size(parser)
    add_device(parser)
    add_json(parser, "the numbers")


def run(arguments: argparse.Namespace) -> int:
    """Measures, writes the report and prints it."""
    from fastreid_clip3d.common.files import check_writable_folder
    from fastreid_clip3d.common.json_file import check_json, write_json
    from fastreid_clip3d.inference.reliance import measure_reliance
    from fastreid_clip3d.visualization.reliance import text_of, write_reliance

    check_json(arguments.json)
    model = model_source(arguments).load(arguments.device)
    folder = check_writable_folder(arguments.output or model.run_folder / "reliance", "--output")
    report = measure_reliance(
        model,
        root=arguments.root,
        workers=arguments.workers,
        batch_size=arguments.batch_size,
        people=arguments.people,
        seed=arguments.seed,
    )
    written = write_reliance(folder, report)
    if arguments.json:
        write_json(arguments.json, report.as_dict())
    if arguments.json != "-":
        print(text_of(report), end="")
    print(f"written: {', '.join(map(str, written))}", file=sys.stderr)
    return 0
