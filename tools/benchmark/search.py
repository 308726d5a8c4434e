"""Seconds per query of a search in a large gallery of random vectors."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
from tabulate import tabulate

from tools.benchmark.figures import write_figures

_ROWS_AT_ONCE = 1 << 14


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument("--gallery", type=int, default=1_000_000, help="vectors in the gallery (1000000)")
    parser.add_argument("--dims", type=int, default=512, help="dimensions of a vector (512)")
    parser.add_argument("--queries", type=int, default=100, help="queries, searched one by one (100)")
    parser.add_argument("--top", type=int, default=10, help="results per query (10)")
    parser.add_argument(
        "--people", type=int, default=0, help="draw the gallery around this many centres (0: independent vectors)"
    )
    parser.add_argument("--threads", type=int, default=0, help="number of threads (that of the processors)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, prints a table and returns the figures.

    The gallery has random vectors of length 1. A query is one of them plus noise, at a cosine of about 0.7, like
    another picture of the same person. The gallery needs 4 bytes per number, and twice that for a moment while the
    index grows.

    Returns:
        build_seconds, seconds_per_query (median, one query at a time), slowest_seconds, and the options.
    """
    import faiss

    from fastreid_clip3d.errors import ClearError

    if min(arguments.gallery, arguments.dims, arguments.queries, arguments.top) < 1:
        raise ClearError("--gallery, --dims, --queries and --top must be at least 1.")
    if arguments.threads:
        faiss.omp_set_num_threads(arguments.threads)
    started = time.perf_counter()
    exact = faiss.IndexFlatIP(arguments.dims)
    for vectors in _gallery(arguments):
        exact.add(vectors)
    build_seconds = time.perf_counter() - started
    queries = _queries(exact, arguments)
    seconds = _seconds_per_query(exact, queries, arguments.top)
    figures = {key: getattr(arguments, key) for key in ("gallery", "dims", "queries", "top", "people")}
    figures.update(
        threads=faiss.omp_get_max_threads(),
        vectors_mib=4 * arguments.gallery * arguments.dims / 2**20,
        build_seconds=build_seconds,
        seconds_per_query=statistics.median(seconds),
        slowest_seconds=max(seconds),
    )
    _print_table(figures)
    write_figures(arguments.json, figures)
    return figures


def _gallery(arguments: argparse.Namespace):
    """Yields the gallery in chunks, float32 [n, dims], each vector of length 1."""
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


def _seconds_per_query(index: Any, queries: np.ndarray, top: int) -> list[float]:
    """Seconds of each query, searched one by one after a warm-up."""
    index.search(queries[:1], top)
    seconds = []
    for query in queries:
        started = time.perf_counter()
        index.search(query[None], top)
        seconds.append(time.perf_counter() - started)
    return seconds


def _print_table(figures: dict[str, Any]) -> None:
    kind = f"around {figures['people']:,} centres" if figures["people"] else "random"
    print(
        f"{figures['gallery']:,} vectors ({kind}) x {figures['dims']} dimensions, {figures['vectors_mib']:.0f} MiB, "
        f"{figures['queries']} queries one by one, {figures['threads']} threads"
    )
    rows = [[figures["build_seconds"], figures["seconds_per_query"], figures["slowest_seconds"]]]
    headers = ["seconds to build", "seconds per query", "slowest"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=(".1f", ".4f", ".4f")))
