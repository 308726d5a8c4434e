#!/usr/bin/env python
"""Scores saved features by any protocol, without a model."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # mAP, Rank-1, -5, -10 and mINP by three protocols, on the screen and as json
  python tools/evaluate.py --features ltcc.npz --protocols general CC SC --json ltcc.json

  # what each query found, for looking into errors; euclidean distances
  python tools/evaluate.py --features ltcc.npz --protocols CC --per-query ltcc.csv --metric euclidean

  # less memory, or a GPU
  python tools/evaluate.py --features msmt17.npz --protocols general --max-memory 256
  python tools/evaluate.py --features msmt17.npz --protocols general --device cuda

The file is an npz with query_features [Q, D], query_pids, query_camids, query_clothes_ids [Q], and the same four with
gallery_; clothes ids may be absent. Training writes such files with TEST.EVALUATION.SAVE_FEATURES True.
Protocols: general, CC (cloth-changing), SC (same clothes), nothing (no gallery item is removed).
docs/evaluation.md has the rules, and what happens to equal distances.
exit code: 0 scored, 2 an error
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", required=True, metavar="FILE", help="npz file with features and ids")
    parser.add_argument("--protocols", nargs="+", metavar="NAME", help="default: general, CC and SC as far as possible")
    parser.add_argument("--json", metavar="FILE", help="write the numbers, in percent; null where no query has a match")
    parser.add_argument("--metric", choices=("cosine", "euclidean"), default="cosine", help="default: cosine")
    parser.add_argument("--per-query", metavar="FILE", help="write the results of single queries, .csv or .parquet")
    parser.add_argument("--top", type=int, default=10, help="closest items listed for each query (default: 10)")
    parser.add_argument(
        "--max-memory", type=float, default=1024, metavar="MIB", help="beyond the features (default: 1024)"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    from fastreid_clip3d.evaluation.score_file import score_file

    return score_file(parse_arguments(arguments))


if __name__ == "__main__":
    run_tool(main)
