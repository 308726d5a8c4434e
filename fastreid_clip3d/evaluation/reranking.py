"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) with sparse matrices: fast-reid's numbers in less memory.

fast-reid keeps two dense matrices of all images by all images, 35 GB each at MSMT17's size. An image shares neighbours
with few others, so our weights are sparse, and we compute distances a block of queries at a time.

Shape letters: N = Q + G all images, D features, nnz the neighbours of all images together.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from fastreid.utils.compute_dist import build_dist
from scipy import sparse

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.distances import METRICS, Metric

_PAIRS_AT_ONCE = 1 << 18
_QUERIES_AT_ONCE = 128


def check_settings(k1: int, k2: int, weight: float) -> None:
    """Refuses settings of :class:`RerankedDistances` that are out of range."""
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise ClearError(
            f"TEST.RERANK: K1 {k1} and K2 {k2} must be 1 or more, LAMBDA {weight} must lie between 0 and 1."
        )


class RerankedDistances:
    """Distances of queries to the gallery, ``(1 - weight) * Jaccard distance + weight * original distance``.

    Args:
        query: [Q, D]. gallery: [G, D].
        metric: of the original distance, "cosine" or "euclidean".
        k1: neighbours that may be reciprocal, ``TEST.RERANK.K1``. k2: neighbours whose weights are averaged,
            ``TEST.RERANK.K2``. weight: lambda, 0..1, ``TEST.RERANK.LAMBDA``.

    Raises:
        ClearError: a setting out of range.
    """

    def __init__(
        self, query: torch.Tensor, gallery: torch.Tensor, metric: Metric, k1: int = 20, k2: int = 6, weight: float = 0.3
    ) -> None:
        if metric not in METRICS:
            raise ClearError(f"TEST.METRIC is {metric!r}; re-ranking knows {', '.join(METRICS)}.")
        check_settings(k1, k2, weight)
        self.shape = (len(query), len(gallery))
        self.query, self.gallery, self.metric, self.weight = query.float(), gallery.float(), metric, weight
        everything = torch.cat((self.query, self.gallery))
        if metric == "cosine":
            everything = F.normalize(everything, dim=1)
        nearest = nearest_images(everything.numpy(), min(k1, len(everything)))
        weights = neighbour_weights(everything.numpy(), nearest, k1)
        if k2 > 1:
            weights = _mean_of_rows(nearest[:, :k2]) @ weights
        self._query_weights = weights[: len(query)].tocsr()
        # by shared neighbour: the gallery images that have it, and their weights
        self._gallery_weights = weights[len(query) :].tocsc()

    def rows(self, queries: np.ndarray) -> np.ndarray:
        """Distances float32 [len(queries), G] of these queries."""
        distances = build_dist(self.query[torch.from_numpy(queries)], self.gallery, self.metric)
        for line, query in enumerate(queries.tolist()):
            shared = self._shared(query)
            jaccard = np.maximum(1 - shared / (2 - shared), 0)
            distances[line] = (1 - self.weight) * jaccard + self.weight * distances[line]
        return distances

    def matrix(self) -> np.ndarray:
        """All distances, float32 [Q, G]."""
        matrix = np.empty(self.shape, np.float32)
        for start in range(0, len(matrix), _QUERIES_AT_ONCE):
            block = np.arange(start, min(start + _QUERIES_AT_ONCE, len(matrix)))
            matrix[block] = self.rows(block)
        return matrix

    def _shared(self, query: int) -> np.ndarray:
        """Sum over the shared neighbours of the smaller of both weights, [G]; every image's weights sum to 1."""
        own = self._query_weights
        neighbours = slice(own.indptr[query], own.indptr[query + 1])
        total = np.zeros(self.shape[1])
        by_neighbour = self._gallery_weights
        starts, ends = by_neighbour.indptr[own.indices[neighbours]], by_neighbour.indptr[own.indices[neighbours] + 1]
        for weight, start, end in zip(own.data[neighbours], starts, ends):
            total[by_neighbour.indices[start:end]] += np.minimum(weight, by_neighbour.data[start:end])
        return total


def nearest_images(features: np.ndarray, count: int) -> np.ndarray:
    """The `count` nearest images of each image by Euclidean distance, with itself, nearest first: int64 [N, count]."""
    import faiss

    index = faiss.IndexFlatL2(features.shape[1])
    index.add(np.ascontiguousarray(features, np.float32))
    return index.search(np.ascontiguousarray(features, np.float32), count)[1]


def neighbour_weights(features: np.ndarray, nearest: np.ndarray, k1: int) -> sparse.csr_matrix:
    """Weights of each image's k-reciprocal neighbours and their neighbours: sparse [N, N], rows sum to 1.

    Args:
        features: float32 [N, D]. nearest: int64 [N, k1], of :func:`nearest_images`.
    """
    mutual = _mutual(nearest)
    half = _mutual(nearest[:, : int(np.around(k1 / 2)) + 1])
    # A neighbour's neighbours join where more than two thirds of them are neighbours already.
    overlap = mutual.multiply((mutual @ half.T).tocsr())
    sizes = np.asarray(half.sum(1)).ravel()
    overlap = overlap.tocoo()
    joins = overlap.data > 2 / 3 * sizes[overlap.col]
    chosen = sparse.csr_matrix((np.ones(joins.sum()), (overlap.row[joins], overlap.col[joins])), shape=mutual.shape)
    expanded = (mutual + chosen @ half).tocsr()
    expanded.sort_indices()
    rows = np.repeat(np.arange(len(features)), np.diff(expanded.indptr))
    distances = np.empty(expanded.nnz)
    for start in range(0, expanded.nnz, _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        difference = features[rows[part]].astype(np.float64) - features[expanded.indices[part]]
        distances[part] = (difference**2).sum(1)
    # softmax of minus the distance, row by row
    lowest = np.full(len(features), np.inf)
    np.minimum.at(lowest, rows, distances)
    exponentials = np.exp(lowest[rows] - distances)
    totals = np.bincount(rows, exponentials, len(features))
    return sparse.csr_matrix((exponentials / totals[rows], expanded.indices, expanded.indptr), shape=expanded.shape)


def _mutual(nearest: np.ndarray) -> sparse.csr_matrix:
    """Which images are among each other's nearest: sparse 0/1 [N, N]."""
    count, width = nearest.shape
    points = sparse.csr_matrix(
        (np.ones(nearest.size), nearest.ravel(), np.arange(0, nearest.size + 1, width)), shape=(count, count)
    )
    return points.multiply(points.T).tocsr()


def _mean_of_rows(nearest: np.ndarray) -> sparse.csr_matrix:
    """The matrix that averages the rows of each image's nearest images: sparse [N, N]."""
    count, width = nearest.shape
    return sparse.csr_matrix(
        (np.full(nearest.size, 1 / width), nearest.ravel(), np.arange(0, nearest.size + 1, width)), shape=(count, count)
    )
