"""Scores saved features, or a model on a dataset, by any protocol."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastreid_clip3d.cli.refinement_options import add_refinement
from fastreid_clip3d.cli.run_options import (
    add_batch_size,
    add_data,
    add_device,
    add_json,
    add_model,
    add_root,
    given_flags,
    model_source,
    positive,
)
from fastreid_clip3d.errors import ClearError

if TYPE_CHECKING:
    from fastreid_clip3d.evaluation.protocols import Protocol
    from fastreid_clip3d.evaluation.ranking import LabelledFeatures
    from fastreid_clip3d.evaluation.score_file import Read

EXAMPLES = """\
examples:
  # mAP, Rank-1, -5, -10 and mINP by three protocols, on the screen and as json
  clip3d evaluate --features ltcc.npz --protocols general CC SC --json ltcc.json

  # what each query found, for looking into errors; euclidean distances
  clip3d evaluate --features ltcc.npz --protocols CC --per-query ltcc.csv --metric euclidean

  # better answers from the same features: neighbour centralisation, query expansion, re-ranking
  clip3d evaluate --features ltcc.npz --nfc
  clip3d evaluate --features ltcc.npz --nfc --expand 5 --rerank

  # a model of any source on a dataset; a row for a table
  clip3d evaluate --model logs/demo/clip3d --data SynthCCTiny --root datasets/demo
  clip3d evaluate --model open_clip:ViT-B-32/openai --data SynthCCTiny --root datasets/demo --json clip.json

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
    parser.add_argument("--features", default="", metavar="FILE", help="npz file with features and ids")
    add_model(parser, required=False)
    add_data(parser, "the dataset or CSV file whose query and gallery go through --model")
    add_root(parser)
    add_batch_size(parser)
    parser.add_argument(
        "--protocols", nargs="+", metavar="NAME", help="default: the dataset's; of a file general, CC, SC"
    )
    add_json(parser, "the numbers, in percent and null where no query has a match,")
    parser.add_argument("--metric", choices=("cosine", "euclidean"), default="cosine", help="default: cosine")
    add_refinement(parser)
    parser.add_argument("--per-query", metavar="FILE", help="write the results of single queries, .csv or .parquet")
    parser.add_argument(
        "--top", type=positive, metavar="N", help="closest items of each query in that file (default: 10)"
    )
    parser.add_argument(
        "--max-memory", type=float, default=1024, metavar="MIB", help="beyond the features (default: 1024)"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Scores the file or the model and writes what the flags name."""
    if bool(arguments.features) == bool(arguments.model) or bool(arguments.model) != bool(arguments.data):
        raise ClearError("Give either --features FILE or --model MODEL with --data DATASET.")
    of_the_model = ("config", "allow_imports", "size", "mean", "std", "channels", "range", "root")
    if arguments.features and (names := given_flags(arguments, *of_the_model)):
        raise ClearError(f"{names}: only with --model, not with --features. Leave it out.")
    if arguments.top and not arguments.per_query:
        raise ClearError(
            "--top is the number of items in the file of --per-query. Give --per-query FILE, or leave it out."
        )
    from fastreid_clip3d.evaluation.refinement import Refinement
    from fastreid_clip3d.evaluation.score_file import read_file, score_file

    score_file(
        arguments.features or arguments.data,
        protocols=arguments.protocols or (),
        metric=arguments.metric,
        refinement=Refinement.of_flags(arguments.nfc, arguments.expand, arguments.rerank),
        json_file=arguments.json,
        per_query=arguments.per_query,
        top=arguments.top or 10,
        max_memory=arguments.max_memory,
        device=arguments.device,
        read=_dataset_reader(arguments) if arguments.model else read_file,
    )
    return 0


def _dataset_reader(arguments: argparse.Namespace) -> Read:
    """Loads the model when it is called: after ``score_file`` has checked the other arguments."""
    from fastreid_clip3d.inference.dataset_features import dataset_features

    def read(data: str) -> tuple[LabelledFeatures, LabelledFeatures, Sequence[Protocol]]:
        model = model_source(arguments).load(arguments.device)
        return dataset_features(model, data, arguments.batch_size, sys.stderr.isatty(), arguments.root)

    return read
