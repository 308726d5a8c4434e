"""Seconds a query takes in a large gallery of random vectors, exact and approximate, with the recall of the latter."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

EXACT, APPROXIMATE = "exact", "approximate"
_ROWS_AT_ONCE = 1 << 14


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument("--gallery", type=int, default=1_000_000, help="vectors of the gallery (1000000)")
    parser.add_argument("--dims", type=int, default=512, help="dimensions of a vector (512)")
    parser.add_argument("--queries", type=int, default=100, help="queries, each searched by itself (100)")
    parser.add_argument("--top", type=int, default=10, help="neighbours of a query (10)")
    parser.add_argument(
        "--people", type=int, default=0, help="draw the gallery around so many centres (0: every vector by itself)"
    )
    parser.add_argument("--only", choices=(EXACT, APPROXIMATE), default="", help="leave the other index out")
    parser.add_argument("--threads", type=int, default=0, help="threads (as many as processors)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, prints a table and returns the figures.

    The gallery is random vectors of length 1. A query is one of them with noise added, at a cosine of some 0.7, as
    another picture of the same person. Memory: the vectors once for each index, 4 bytes a number, and as much again for
    a moment while an index grows.

    Returns:
        ``rows``: a list of {index, build_seconds, seconds_per_query (median, one query at a time), slowest_seconds,
        recall (share of the true nearest ``top`` found), first_recall (share of queries whose nearest is found),
        clusters, clusters_searched (None for exact)}, and what was asked for.
    """
    import faiss

    from fastreid_clip3d.errors import ClearError
    from fastreid_clip3d.inference.search.approximate import build_approximate

    if min(arguments.gallery, arguments.dims, arguments.queries, arguments.top) < 1:
        raise ClearError("--gallery, --dims, --queries and --top must be 1 or more")
    if arguments.threads:
        faiss.omp_set_num_threads(arguments.threads)
    started = time.perf_counter()
    exact = faiss.IndexFlatIP(arguments.dims)
    for vectors in _gallery(arguments):
        exact.add(vectors)
    build_seconds = time.perf_counter() - started
    queries = _queries(exact, arguments)
    rows = []
    truth, seconds = _answers(exact, queries, arguments.top)
    if arguments.only != APPROXIMATE:
        rows.append(_row(EXACT, build_seconds, seconds, truth, truth))
    if arguments.only != EXACT:
        started = time.perf_counter()
        built = build_approximate(exact)
        build_seconds = time.perf_counter() - started
        found, seconds = _answers(built.index, queries, arguments.top)
        row = _row(APPROXIMATE, build_seconds, seconds, found, truth)
        rows.append({**row, "clusters": built.index.nlist, "clusters_searched": built.index.nprobe})
    figures = {key: getattr(arguments, key) for key in ("gallery", "dims", "queries", "top", "people")}
    figures.update(
        threads=faiss.omp_get_max_threads(), vectors_mib=4 * arguments.gallery * arguments.dims / 2**20, rows=rows
    )
    _print_table(figures)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _gallery(arguments: argparse.Namespace):
    """The gallery in chunks, float32 [n, dims] of length 1."""
    generator = np.random.default_rng(arguments.seed)
    centres = generator.standard_normal((arguments.people, arguments.dims), dtype=np.float32)
    for start in range(0, arguments.gallery, _ROWS_AT_ONCE):
        rows = min(_ROWS_AT_ONCE, arguments.gallery - start)
        vectors = generator.standard_normal((rows, arguments.dims), dtype=np.float32)
        if arguments.people:
            vectors += centres[generator.integers(0, arguments.people, rows)]
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _queries(exact: Any, arguments: argparse.Namespace) -> np.ndarray:
    generator = np.random.default_rng([arguments.seed, 1])
    chosen = generator.integers(0, arguments.gallery, arguments.queries)
    vectors = np.stack([exact.reconstruct(int(row)) for row in chosen])
    vectors += generator.standard_normal(vectors.shape, dtype=np.float32) / np.sqrt(np.float32(arguments.dims))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _answers(index: Any, queries: np.ndarray, top: int) -> tuple[list[list[int]], list[float]]:
    """What each query finds, and its seconds; one more before them warms up."""
    index.search(queries[:1], top)
    found, seconds = [], []
    for query in queries:
        started = time.perf_counter()
        _, rows = index.search(query[None], top)
        seconds.append(time.perf_counter() - started)
        found.append([row for row in rows[0].tolist() if row >= 0])
    return found, seconds


def _row(
    name: str, build_seconds: float, seconds: list[float], found: list[list[int]], truth: list[list[int]]
) -> dict[str, Any]:
    return {
        "index": name,
        "build_seconds": build_seconds,
        "seconds_per_query": statistics.median(seconds),
        "slowest_seconds": max(seconds),
        "recall": float(np.mean([len(set(one) & set(other)) / len(other) for one, other in zip(found, truth)])),
        "first_recall": float(np.mean([one[:1] == other[:1] for one, other in zip(found, truth)])),
        "clusters": None,
        "clusters_searched": None,
    }


def _print_table(figures: dict[str, Any]) -> None:
    from tabulate import tabulate

    kind = f"around {figures['people']:,} centres" if figures["people"] else "random"
    print(
        f"{figures['gallery']:,} vectors ({kind}) x {figures['dims']} dimensions, {figures['vectors_mib']:.0f} MiB, "
        f"{figures['queries']} queries one by one, {figures['threads']} threads"
    )
    keys = [
        "index",
        "build_seconds",
        "seconds_per_query",
        "slowest_seconds",
        "recall",
        "first_recall",
        "clusters_searched",
    ]
    headers = [
        "index", "seconds to build", "seconds a query", "slowest", f"recall at {figures['top']}", "nearest found",
        "clusters searched",
    ]  # fmt: skip
    formats = ("", ".1f", ".4f", ".4f", ".3f", ".3f", "")
    rows = [[row[key] for key in keys] for row in figures["rows"]]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=formats, missingval="-"))
