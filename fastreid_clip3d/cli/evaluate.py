"""Scores saved features by any protocol, without a model."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.run_options import add_device, add_json, positive

EXAMPLES = """\
examples:
  # mAP, Rank-1, -5, -10 and mINP by three protocols, on the screen and as json
  clip3d evaluate --features ltcc.npz --protocols general CC SC --json ltcc.json

  # what each query found, for looking into errors; euclidean distances
  clip3d evaluate --features ltcc.npz --protocols CC --per-query ltcc.csv --metric euclidean

  # less memory, or a GPU
  clip3d evaluate --features msmt17.npz --protocols general --max-memory 256
  clip3d evaluate --features msmt17.npz --protocols general --device cuda

The file is an npz with query_features [Q, D], query_pids, query_camids, query_clothes_ids [Q], and the same four with
gallery_; clothes ids may be absent. `clip3d extract --data DATASET` writes such a file, and so does training with
TEST.EVALUATION.SAVE_FEATURES True.
Protocols: general, CC (cloth-changing), SC (same clothes), nothing (no gallery item is removed).
docs/evaluation.md has the rules, and what happens to equal distances.
exit code: 0 scored, 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--features", required=True, metavar="FILE", help="npz file with features and ids")
    parser.add_argument("--protocols", nargs="+", metavar="NAME", help="default: general, CC and SC as far as possible")
    add_json(parser, "the numbers, in percent and null where no query has a match,")
    parser.add_argument("--metric", choices=("cosine", "euclidean"), default="cosine", help="default: cosine")
    parser.add_argument("--per-query", metavar="FILE", help="write the results of single queries, .csv or .parquet")
    parser.add_argument(
        "--top", type=positive, default=10, metavar="N", help="closest items listed for each query (default: 10)"
    )
    parser.add_argument(
        "--max-memory", type=float, default=1024, metavar="MIB", help="beyond the features (default: 1024)"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Scores the file and writes what the flags name."""
    from fastreid_clip3d.evaluation.score_file import score_file

    score_file(
        arguments.features,
        protocols=arguments.protocols or (),
        metric=arguments.metric,
        json_file=arguments.json,
        per_query=arguments.per_query,
        top=arguments.top,
        max_memory=arguments.max_memory,
        device=arguments.device,
    )
    return 0
