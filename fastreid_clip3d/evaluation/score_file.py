"""What `clip3d evaluate` does: it scores features and writes the numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from tabulate import tabulate
from tqdm import tqdm

from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.common.files import check_writable
from fastreid_clip3d.common.json_file import check_json, write_json
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import read_features
from fastreid_clip3d.evaluation.per_query import check_format, write_per_query
from fastreid_clip3d.evaluation.protocols import STANDARD_PROTOCOLS, Protocol, find_protocols, why_no_match
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, check_max_memory, evaluate, taking_part
from fastreid_clip3d.evaluation.refinement import NOTHING_REFINED, Refinement

Read = Callable[[str], tuple[LabelledFeatures, LabelledFeatures, Sequence[Protocol]]]
"""Query and gallery of the features of this name, and the protocols that their dataset declares. The feature of a
tracklet is the mean of its frames'."""


def read_file(features: str) -> tuple[LabelledFeatures, LabelledFeatures, Sequence[Protocol]]:
    """A file of features; it declares no protocols."""
    return (*read_features(features), ())


def _progress(blocks: Iterable, count: int) -> Iterable:
    return tqdm(blocks, total=count, desc="queries", unit="block", leave=False, disable=None if count > 1 else True)


def score_file(
    features: str,
    *,
    protocols: Sequence[str] = (),
    metric: Literal["cosine", "euclidean"] = "cosine",
    refinement: Refinement = NOTHING_REFINED,
    json_file: str = "",
    per_query: str = "",
    top: int = 10,
    max_memory: float = 1024,
    device: str = "",
    read: Read = read_file,
) -> None:
    """Scores a file of features, prints the table and writes the files that are named.

    Args:
        features: npz file with features and ids of query and gallery, or what else `read` takes.
        protocols: names; none means those that the dataset declares, but for those on clips of tracklets, else
            general, and CC and SC where there are clothes ids.
        refinement: what happens to features and distances before they are ranked.
        json_file: for the numbers in percent; "-": standard output, in place of the table.
        per_query: .csv or .parquet file for the result of each query.
        top: gallery items that `per_query` lists per query, 1 or more.
        max_memory: MiB beyond the features, above 0. device: as in ``find_device``.
        read: where query and gallery come from.

    Raises:
        ClearError: an argument or the file is wrong; nothing has been written then.
    """
    if per_query:
        check_format(check_writable(per_query))
    check_json(json_file)
    if top < 1:
        raise ClearError(f"--top is {top}; it must be 1 or more.")
    check_max_memory(max_memory)
    device = str(find_device(device))
    if protocols and read is read_file:
        find_protocols(protocols)
    query, gallery, declared = read(features)
    has_clothes = query.clothes_ids is not None
    usable = [
        protocol
        for protocol in declared
        if (has_clothes or not protocol.needs_clothes) and protocol.tracklet_pooling != "clips"
    ]
    if protocols:
        chosen = find_protocols(protocols, declared)
    else:
        chosen = tuple(usable) or find_protocols(["general", "CC", "SC"] if has_clothes else ["general"])
    refused = [protocol.name for protocol in chosen if protocol.needs_clothes and not has_clothes]
    if refused:
        possible = ", ".join(name for name, protocol in STANDARD_PROTOCOLS.items() if not protocol.needs_clothes)
        raise ClearError(
            f"{features} does not have the clothes ids of all items, which protocol {', '.join(refused)} needs. "
            f"Protocols that need no clothes: {possible}."
        )
    wanted = chosen if protocols else declared
    if of_clips := [protocol.name for protocol in wanted if protocol.tracklet_pooling == "clips"]:
        done = "scored on the mean of each tracklet's frames" if protocols else "not scored"
        print(
            f"warning: {', '.join(of_clips)}: {done}; `clip3d train --eval-only` scores clips, as the protocol has it",
            file=sys.stderr,
        )
    distances = None
    if refinement:
        refined = refinement.features(query.features, gallery.features)
        query, gallery = replace(query, features=refined[0]), replace(gallery, features=refined[1])
        distances = refinement.distances(*refined, metric, max_memory)
    results = evaluate(
        query,
        gallery,
        chosen,
        metric,
        distances=distances,
        max_memory=max_memory,
        device=device,
        top_matches=top if per_query else 0,
        progress=_progress,
    )
    numbers = {name: result.percentages() for name, result in results.items()}
    if json_file != "-":
        headers = ["protocol", *next(iter(numbers.values())), "queries without match"]
        rows = [[name, *values.values(), results[name].queries_without_match] for name, values in numbers.items()]
        print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".2f", missingval="-", intfmt=""))
    for side, items in (("query", query), ("gallery", gallery)):
        if not len(items):
            print(f"warning: {features}: {side}_features has no rows", file=sys.stderr)
    for name, result in results.items():
        if not result.valid_queries and len(query) and len(gallery):
            asked, shown = taking_part(result.protocol, query, gallery)
            why = why_no_match(
                result.protocol, query.pids[asked], query.camids[asked], gallery.pids[shown], gallery.camids[shown]
            )
            print(f"warning: {name}: none of {result.num_queries} queries has a match. {why}", file=sys.stderr)
    if per_query:
        write_per_query(per_query, results, query, gallery)
    if json_file:
        write_json(json_file, numbers)
