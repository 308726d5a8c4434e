"""What `clip3d evaluate` does: scores a file of features and writes the numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Literal

from tabulate import tabulate
from tqdm import tqdm

from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import read_features
from fastreid_clip3d.evaluation.per_query import check_format, write_per_query
from fastreid_clip3d.evaluation.protocols import STANDARD_PROTOCOLS, find_protocols
from fastreid_clip3d.evaluation.ranking import evaluate


def _progress(blocks: Iterable, count: int) -> Iterable:
    return tqdm(blocks, total=count, desc="queries", unit="block", leave=False, disable=None if count > 1 else True)


def score_file(
    features: str,
    *,
    protocols: Sequence[str] = (),
    metric: Literal["cosine", "euclidean"] = "cosine",
    json_file: str | None = None,
    per_query: str | None = None,
    top: int = 10,
    max_memory: float = 1024,
    device: str = "cpu",
) -> None:
    """Scores a file of features, prints the table and writes the files that are named.

    Args:
        features: npz file with features and ids of query and gallery.
        protocols: names; none means general, and CC and SC where the file has clothes ids.
        json_file: for the numbers in percent. per_query: .csv or .parquet, for the result of each query.
        top: gallery items that `per_query` lists per query, 1 or more.
        max_memory: MiB beyond the features, above 0. device: "cpu", "cuda" or "cuda:N".

    Raises:
        ClearError: an argument or the file is wrong; nothing has been written then.
    """
    if per_query:
        check_format(per_query)
    if top < 1 or max_memory <= 0:
        raise ClearError("--top and --max-memory must be positive")
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise ClearError(f"--device {device}: must be cpu or cuda")
    find_device(device)
    chosen = find_protocols(protocols) if protocols else ()
    query, gallery = read_features(features)
    has_clothes = query.clothes_ids is not None
    if not chosen:
        chosen = find_protocols(["general", "CC", "SC"] if has_clothes else ["general"])
    refused = [protocol.name for protocol in chosen if protocol.needs_clothes and not has_clothes]
    if refused:
        possible = ", ".join(name for name, protocol in STANDARD_PROTOCOLS.items() if not protocol.needs_clothes)
        raise ClearError(
            f"{features}: has no query_clothes_ids and gallery_clothes_ids, which protocol "
            f"{', '.join(refused)} needs; without them: {possible}"
        )
    results = evaluate(
        query,
        gallery,
        chosen,
        metric,
        max_memory=max_memory,
        device=device,
        top_matches=top if per_query else 0,
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
            print(f"warning: {features}: {side}_features has no rows", file=sys.stderr)
    for name, result in results.items():
        if not result.valid_queries and len(query) and len(gallery):
            print(f"warning: {name}: none of {result.num_queries} queries has a match", file=sys.stderr)
    if per_query:
        write_per_query(per_query, results, query, gallery)
    if json_file:
        text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"
        write_atomically(json_file, text.encode())
