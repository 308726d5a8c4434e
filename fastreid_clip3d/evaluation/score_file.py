"""What tools/evaluate.py does: scores a file of features and writes the numbers."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Iterable

import torch
from tabulate import tabulate
from tqdm import tqdm

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import read_features, write_atomically
from fastreid_clip3d.evaluation.per_query import check_format, write_per_query
from fastreid_clip3d.evaluation.protocols import STANDARD_PROTOCOLS, find_protocols
from fastreid_clip3d.evaluation.ranking import evaluate


def _progress(blocks: Iterable, count: int) -> Iterable:
    return tqdm(blocks, total=count, desc="queries", unit="block", leave=False, disable=None if count > 1 else True)


def score_file(options: argparse.Namespace) -> int:
    """Scores `options.features` and writes what `options` asks for.

    Raises:
        ClearError: whatever is wrong with the options or the file; nothing has been written then.
    """
    if options.per_query:
        check_format(options.per_query)
    if options.top < 1 or options.max_memory <= 0:
        raise ClearError("--top and --max-memory must be positive")
    if options.device.split(":")[0] not in ("cpu", "cuda"):
        raise ClearError(f"--device {options.device}: must be cpu or cuda")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ClearError(f"--device {options.device}: torch finds no CUDA device here; use cpu")
    protocols = find_protocols(options.protocols) if options.protocols else ()
    query, gallery = read_features(options.features)
    has_clothes = query.clothes_ids is not None
    if not protocols:
        protocols = find_protocols(["general", "CC", "SC"] if has_clothes else ["general"])
    refused = [protocol.name for protocol in protocols if protocol.needs_clothes and not has_clothes]
    if refused:
        possible = ", ".join(name for name, protocol in STANDARD_PROTOCOLS.items() if not protocol.needs_clothes)
        raise ClearError(
            f"{options.features}: has no query_clothes_ids and gallery_clothes_ids, which protocol "
            f"{', '.join(refused)} needs; without them: {possible}"
        )
    results = evaluate(
        query,
        gallery,
        protocols,
        options.metric,
        max_memory=options.max_memory,
        device=options.device,
        top_matches=options.top if options.per_query else 0,
        progress=_progress,
    )
    numbers = {name: result.percentages() for name, result in results.items()}
    columns = list(next(iter(numbers.values())))
    rows = [
        [name, *(values[column] for column in columns), results[name].queries_without_match]
        for name, values in numbers.items()
    ]
    headers = ["protocol", *columns, "queries without match"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".2f", missingval="-", intfmt=""))
    for side, items in (("query", query), ("gallery", gallery)):
        if not len(items):
            print(f"warning: {options.features}: {side}_features has no rows", file=sys.stderr)
    for name, result in results.items():
        if not result.valid_queries and len(query) and len(gallery):
            print(f"warning: {name}: none of {result.num_queries} queries has a match", file=sys.stderr)
    if options.per_query:
        write_per_query(options.per_query, results, query, gallery)
    if options.json:
        text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"
        write_atomically(options.json, lambda stream: stream.write(text.encode()))
    return 0
