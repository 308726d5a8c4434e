"""A faster index for large galleries that may miss neighbours, with how many it misses measured on the gallery itself.

The vectors are clustered (faiss' inverted file); a query looks into the clusters nearest to it only. How many clusters
it needs is found by trying: the fewest that reach :data:`WANTED_RECALL` on queries drawn from the gallery.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from fastreid_clip3d.inference.search.index import Gallery, read_index, vectors_of, write_index

logger = logging.getLogger(__name__)

WANTED_RECALL = 0.95
SMALLEST = 1000
"""Below so many vectors the exact index is at least as fast."""
_TRIED = 200
_TOP = 10
_PER_CLUSTER = 39  # training vectors that faiss wants for each
_MOST_TRAINING = 1 << 17
_ROWS_AT_ONCE = 1 << 16


class Approximate(NamedTuple):
    """An approximate index and the share of the true ten nearest that it finds."""

    index: faiss.Index
    recall: float


def build_approximate(exact: faiss.IndexFlatIP, wanted_recall: float = WANTED_RECALL, seed: int = 0) -> Approximate:
    """Clusters the vectors of an exact index, and tunes how many clusters a query looks into."""
    vectors, count = vectors_of(exact), exact.ntotal
    generator = np.random.default_rng(seed)
    clusters = max(1, min(int(2 * math.sqrt(count)), count // _PER_CLUSTER, _MOST_TRAINING // _PER_CLUSTER))
    training = vectors[np.sort(generator.permutation(count)[: max(_PER_CLUSTER * clusters, 1)])]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(exact.d), exact.d, clusters, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter = seed + 1, 10
    index.cp.spherical = True
    index.cp.max_points_per_centroid = _PER_CLUSTER * 2
    index.train(training)
    for start in range(0, count, _ROWS_AT_ONCE):
        index.add(vectors[start : start + _ROWS_AT_ONCE])
    queries = np.sort(generator.permutation(count)[:_TRIED])
    # A picture finds itself whatever the clusters; its neighbours are what counts.
    truth = _neighbours(exact, vectors[queries], queries)
    index.nprobe = 1
    while (recall := recall_of(_neighbours(index, vectors[queries], queries), truth)) < wanted_recall:
        if index.nprobe >= clusters:
            break
        index.nprobe = min(2 * index.nprobe, clusters)
    return Approximate(index, recall)


def _neighbours(index: faiss.Index, queries: np.ndarray, own: np.ndarray) -> list[set[int]]:
    _, found = index.search(queries, _TOP + 1)
    return [
        set([item for item in row if item >= 0 and item != place][:_TOP]) for row, place in zip(found.tolist(), own)
    ]


def recall_of(found: list[set[int]], truth: list[set[int]]) -> float:
    """The share of the true neighbours that were found."""
    wanted = sum(map(len, truth))
    return sum(len(one & other) for one, other in zip(found, truth)) / wanted if wanted else 1.0


def approximate_index(gallery: Gallery) -> Approximate:
    """The gallery's approximate index, from its folder or built and kept there.

    The measured recall is in the file's name, so that it never parts from the index.
    """
    for path in gallery.folder.glob(f"approximate-{gallery.token}-*.faiss"):
        try:
            index = read_index(path)
            recall = int(path.stem.rpartition("-")[2]) / 10_000
        except (RuntimeError, ValueError) as error:
            logger.warning(f"{path} is damaged and is built anew ({error}).")
            continue
        if index.ntotal == gallery.index.ntotal and index.d == gallery.index.d:
            return Approximate(index, recall)
    built = build_approximate(gallery.index)
    write_index(built.index, Path(gallery.folder) / f"approximate-{gallery.token}-{round(10_000 * built.recall)}.faiss")
    return built
