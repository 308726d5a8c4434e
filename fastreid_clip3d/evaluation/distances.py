"""Distances between queries and gallery, a block of queries at a time, such that copies have equal distances.

Two things make "equal distance" a usable notion here:

1. Gallery rows that are copies of one another (relative difference up to :data:`COPY_TOLERANCE`, which covers the last
   bits that change when a network sees the same image in another batch) get the distance of one of them, chosen by its
   content and not by its place.
2. Products are summed in float64. There, distances that are equal in exact arithmetic differ by some 1e-16 whatever the
   size of the block or the number of threads, and others practically never by less than :data:`TIE_TOLERANCE`.

Shape letters: Q queries, G gallery items, D feature dimensions.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol, get_args

import numpy as np
import torch

from fastreid_clip3d.errors import ClearError

Metric = Literal["cosine", "euclidean"]
METRICS = get_args(Metric)
# Of a row's norm. A ResNet-50's float32 features of one image differ by up to 8e-7 between batches.
COPY_TOLERANCE = 3e-6
TIE_TOLERANCE = 1e-12  # of the scale of a distance
MATRIX_TIE_TOLERANCE = 5e-7  # of a distance that comes ready-made in float32: four of its last digits
_MIB = 1 << 20
_BLOCK_BYTES = 32 * _MIB
_HUGE = 1e100  # features beyond would overflow when squared
_MAX_STEPS = 64


def compute_device(device: str) -> torch.device:
    """CUDA where `device` names it and torch sees it, the CPU otherwise."""
    wanted = torch.device(device or "cpu")
    # float64 exists on CPU and CUDA only
    return wanted if wanted.type == "cuda" and torch.cuda.is_available() else torch.device("cpu")


def _row_blocks(rows: int, dims: int) -> list[slice]:
    step = max(1, _BLOCK_BYTES // (8 * max(dims, 1)))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def largest_value(features: torch.Tensor) -> float:
    """The largest absolute value, without a copy of the features; NaN if one of them is NaN, 0 if there are none."""
    return float(np.max([float(features[block].abs().max()) for block in _row_blocks(*features.shape)], initial=0.0))


def first_non_finite_row(features: torch.Tensor) -> int | None:
    """The first row [N, D] with a NaN or an infinity, or None."""
    for block in _row_blocks(*features.shape):
        finite = torch.isfinite(features[block]).all(dim=1)
        if not finite.all():
            return block.start + int(torch.nonzero(~finite)[0, 0])
    return None


def _norms(features: torch.Tensor, scale: float) -> torch.Tensor:
    """Euclidean norms of the scaled rows, float64 [N]."""
    norms = torch.empty(len(features), dtype=torch.float64)
    for block in _row_blocks(*features.shape):
        norms[block] = torch.linalg.vector_norm(features[block].double() * scale, dim=1)
    return norms


def find_copies(features: torch.Tensor, factors: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are copies of another row, and that row.

    Copies form chains: if b is a copy of a and c of b, the three are copies. Candidates are neighbours in random
    projections, so the cost is that of a sort, not of all pairs.

    Args:
        features: [N, D], finite. factors: float64 [N]; we multiply each row by its factor before we compare it.

    Returns:
        `copies` and `originals`, int64 [C]: row `copies[i]` equals row `originals[i]`. Of a set of copies the original
        is the smallest row in the order of bytes, whatever the order of the rows.
    """
    rows, dims = features.shape
    parent = np.arange(rows)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    directions = torch.from_numpy(np.random.default_rng(0).standard_normal((dims, 4)))
    projections, norms = np.empty((rows, 4)), np.empty(rows)
    by_content: dict[int, int] = {}
    for block in _row_blocks(rows, dims):
        scaled = features[block].double() * factors[block, None]
        projections[block] = (scaled @ directions).numpy()
        norms[block] = torch.linalg.vector_norm(scaled, dim=1).numpy()
        for row, content in enumerate(features[block].numpy(), start=block.start):
            parent[row] = by_content.setdefault(hash(content.tobytes()), row)

    order = np.argsort(projections[:, 0], kind="stable")
    reach = 8 * COPY_TOLERANCE  # a projection of a difference d is normally distributed with deviation |d|
    for step in range(1, min(_MAX_STEPS, rows - 1) + 1):
        near, far = order[:-step], order[step:]
        width = reach * np.maximum(norms[near], norms[far])
        close = projections[far, 0] - projections[near, 0] <= width
        if not close.any():
            break
        near, far, width = near[close], far[close], width[close]
        close = (np.abs(projections[far, 1:] - projections[near, 1:]) <= width[:, None]).all(axis=1)
        pairs = [(a, b) for a, b in zip(near[close].tolist(), far[close].tolist()) if root(a) != root(b)]
        for block in _row_blocks(len(pairs), dims):
            a, b = (torch.tensor(side) for side in zip(*pairs[block]))
            difference = features[a].double() * factors[a, None] - features[b].double() * factors[b, None]
            bound = COPY_TOLERANCE * np.maximum(norms[a.numpy()], norms[b.numpy()])
            for index in np.flatnonzero(torch.linalg.vector_norm(difference, dim=1).numpy() <= bound):
                one, other = root(int(a[index])), root(int(b[index]))
                parent[max(one, other)] = min(one, other)

    roots = np.array([root(row) for row in range(rows)], dtype=np.int64)
    members: dict[int, list[int]] = {}
    for copy in np.flatnonzero(roots != np.arange(rows)):
        members.setdefault(int(roots[copy]), [int(roots[copy])]).append(int(copy))
    copies, originals = [], []
    for group in members.values():
        original = min(group, key=lambda row: features[row].numpy().tobytes())
        others = [row for row in group if row != original]
        copies += others
        originals += [original] * len(others)
    return np.array(copies, dtype=np.int64), np.array(originals, dtype=np.int64)


class FeatureDistances:
    """Distances from features: cosine (1 - cosine similarity) or euclidean (squared, as fast-reid's).

    :meth:`rows` gives values in the order of the distance: cosine without the 1, euclidean without the square of the
    query's norm, which saves a pass over the block. :meth:`true_distances` adds them.

    Args:
        query: [Q, D]. gallery: [G, D]; float16, float32 or float64, finite.
        device: where the products are computed.
        max_memory: MiB. We keep the gallery in float64 if that takes at most half of it; otherwise we convert it again
            for every block of queries.
    """

    def __init__(
        self, query: torch.Tensor, gallery: torch.Tensor, metric: Metric, device: torch.device, max_memory: float
    ) -> None:
        if metric not in METRICS:
            raise ClearError(f"metric {metric!r} is unknown; known metrics: {', '.join(METRICS)}")
        self.query, self.gallery, self.metric, self.device = query, gallery, metric, device
        self.num_gallery, self.dims = gallery.shape
        largest = max(largest_value(query), largest_value(gallery))
        # a power of two changes no digit
        self._scale = 2.0 ** -np.ceil(np.log2(largest)) if largest > _HUGE else 1.0
        self._query_norms, gallery_norms = _norms(query, self._scale), _norms(gallery, self._scale)
        self._query_factors = torch.full_like(self._query_norms, self._scale)
        self._gallery_factors = torch.full_like(gallery_norms, self._scale)
        if metric == "cosine":  # the bound is that of torch's normalize, which fast-reid uses
            self._query_factors /= self._query_norms.clamp_min(1e-12)
            self._gallery_factors /= gallery_norms.clamp_min(1e-12)
        self._gallery_squares = gallery_norms.square().to(device)
        self._copies, self._originals = find_copies(gallery, self._gallery_factors)
        self._buffer: torch.Tensor | None = None
        # the whole gallery, or one block of it, ready to be multiplied
        self._whole = 8 * gallery.numel() <= max_memory * _MIB / 2
        self._blocks = [slice(0, self.num_gallery)] if self._whole else _row_blocks(*gallery.shape)
        rows = self._blocks[0].stop if self._blocks else 0
        self._right = torch.empty((rows, self.dims), dtype=torch.float64, device=device)
        if self._whole:
            for block in _row_blocks(*gallery.shape):
                self._fill(self._right[block], block)

    def _fill(self, target: torch.Tensor, block: slice) -> torch.Tensor:
        return target.copy_(self.gallery[block]).mul_(self._gallery_factors[block, None].to(self.device))

    def _gallery_block(self, block: slice) -> torch.Tensor:
        return self._right if self._whole else self._fill(self._right[: block.stop - block.start], block)

    @property
    def fixed_bytes(self) -> int:
        """Memory beyond the features that does not depend on the number of queries of a block."""
        return 8 * self._right.numel()

    @property
    def row_bytes(self) -> int:
        """Memory per query of a block: its distances, on CUDA also in sorted order with their indices."""
        return 8 * self.num_gallery * (1 if self.device.type == "cpu" else 3)

    @property
    def prefers_large_blocks(self) -> bool:
        """Whether each block converts the gallery anew, which large blocks do less often."""
        return not self._whole

    def rows(self, queries: np.ndarray) -> torch.Tensor:
        """Comparable distances of these queries, float64 [len(queries), G], on the device.

        The next call overwrites them.
        """
        index = torch.from_numpy(queries)
        left = (self.query[index].double() * self._query_factors[index, None]).to(self.device)
        left *= -1.0 if self.metric == "cosine" else -2.0
        if self._buffer is None or len(self._buffer) < len(queries):
            self._buffer = None  # frees the old one first
            self._buffer = torch.empty((len(queries), self.num_gallery), dtype=torch.float64, device=self.device)
        distances = self._buffer[: len(queries)]
        for block in self._blocks:
            torch.mm(left, self._gallery_block(block).t(), out=distances[:, block])
        if self.metric == "euclidean":
            distances += self._gallery_squares
        for start in range(0, len(self._copies), 4096):
            copies, originals = (
                torch.from_numpy(side[start : start + 4096]) for side in (self._copies, self._originals)
            )
            distances[:, copies.to(self.device)] = distances[:, originals.to(self.device)]
        return distances

    def tolerance(self, queries: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The difference up to which comparable distances `values` of `queries` (both [N]) are tied, float64 [N]."""
        if self.metric == "cosine":
            return np.full(len(values), TIE_TOLERANCE)
        # the gallery row's norm is at most the query's norm plus the distance
        norms = self._query_norms.numpy()[queries]
        return TIE_TOLERANCE * (2 * norms + np.sqrt(np.maximum(values + norms**2, 0.0))) ** 2

    def true_distances(self, queries: np.ndarray, values: np.ndarray) -> np.ndarray:
        """fast-reid's distances from comparable ones [len(queries), ...]."""
        if self.metric == "cosine":
            return 1.0 + values
        squares = self._query_norms.numpy()[queries] ** 2
        return (values + squares.reshape(-1, *[1] * (values.ndim - 1))) / self._scale**2


class RowSource(Protocol):
    """Distances that are computed block by block, as ``reranking.RerankedDistances``."""

    shape: tuple[int, int]

    def rows(self, queries: np.ndarray) -> np.ndarray:
        """float32 [len(queries), G]."""
        ...


class MatrixDistances:
    """Distances without features, as after re-ranking: an array [Q, G] or a source of its rows, finite.

    Args:
        columns: int64 [g], the gallery items that take part.
    """

    fixed_bytes = 0
    prefers_large_blocks = False

    def __init__(self, distances: np.ndarray | RowSource, columns: np.ndarray) -> None:
        self.distances, self.columns = distances, columns
        self.num_gallery = len(columns)
        self.row_bytes = 16 * distances.shape[1]
        is_double = isinstance(distances, np.ndarray) and distances.dtype.itemsize > 4
        self._tolerance = TIE_TOLERANCE if is_double else MATRIX_TIE_TOLERANCE

    def rows(self, queries: np.ndarray) -> torch.Tensor:
        """The rows of these queries, float64 [len(queries), g]."""
        rows = self.distances[queries] if isinstance(self.distances, np.ndarray) else self.distances.rows(queries)
        values = rows[:, self.columns].astype(np.float64)
        if not np.isfinite(values).all():
            line, column = np.argwhere(~np.isfinite(values))[0]
            raise ClearError(
                f"The distance of query {queries[line]} to gallery item {self.columns[column]} is "
                f"{values[line, column]}; distances must be finite."
            )
        return torch.from_numpy(values)

    def tolerance(self, queries: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The difference up to which distances are tied, float64 [N]."""
        return self._tolerance * np.abs(values)

    def true_distances(self, queries: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The distances themselves."""
        return values


def sort_rows(distances: torch.Tensor) -> np.ndarray:
    """Each row in ascending order, as a NumPy array; on a CPU in place, with torch's number of threads."""
    if distances.device.type != "cpu":
        return torch.sort(distances, dim=1).values.cpu().numpy()
    array = distances.numpy()
    threads = max(1, min(torch.get_num_threads(), len(array)))
    if threads == 1:
        array.sort(axis=1)
        return array
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: part.sort(axis=1), np.array_split(array, 4 * threads)))
    return array
