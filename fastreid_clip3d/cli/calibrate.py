"""Measures which similarity means the same person: error rates by threshold, and a recommended threshold."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.run_options import (
    add_batch_size,
    add_data,
    add_device,
    add_model,
    add_root,
    model_source,
)
from fastreid_clip3d.errors import ClearError

EXAMPLES = """\
examples:
  # on the query and gallery of a dataset (below FASTREID_DATASETS): 1 % of pairs of different people may be confused
  FASTREID_DATASETS=datasets/demo clip3d calibrate --model logs/demo/clip3d --data SynthCCTinyVal

  # on features that an evaluation saved (TEST.EVALUATION.SAVE_FEATURES True); stricter; other protocols
  clip3d calibrate --model logs/demo/clip3d --data logs/demo/clip3d/evaluation/SynthCCTiny_features.npz \\
      --false-match-rate 0.001 --protocols CC general

It writes calibration.json and calibration.png into the run folder. From then on `clip3d search` and
load_model(RUN).compare(a, b) say how sure they are. Calibrate on people on whom you report no scores.
docs/search.md explains the plot.
exit code: 0 calibrated, 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    add_model(parser)
    add_data(parser, "name of a dataset, a CSV file, or an npz file of features", required=True)
    add_root(parser)
    parser.add_argument(
        "--protocols", nargs="+", metavar="NAME", help="default: the dataset's; of a file general, CC, SC"
    )
    parser.add_argument(
        "--false-match-rate", type=float, default=0.01, metavar="RATE",
        help="share of pairs of different people that may be called the same person (default: 0.01)",
    )  # fmt: skip
    parser.add_argument("--output", metavar="FOLDER", default="", help="default: the run folder")
    add_batch_size(parser)
    parser.add_argument(
        "--max-memory", type=float, default=1024, metavar="MIB", help="beyond the features (default: 1024)"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Calibrates the model and writes json and plot."""
    from fastreid_clip3d.evaluation.calibration import check_false_match_rate
    from fastreid_clip3d.evaluation.ranking import check_max_memory
    from fastreid_clip3d.inference.search.calibration_run import calibrate_run

    if arguments.root and arguments.data.endswith(".npz"):
        raise ClearError("--root is the folder of a dataset that --data names. Leave it out with a file of features.")
    check_false_match_rate(arguments.false_match_rate)
    check_max_memory(arguments.max_memory)
    calibrate_run(
        model_source(arguments),
        arguments.data,
        root=arguments.root,
        protocols=arguments.protocols,
        false_match_rate=arguments.false_match_rate,
        output=arguments.output,
        batch_size=arguments.batch_size,
        max_memory=arguments.max_memory,
        device=arguments.device,
    )
    return 0
