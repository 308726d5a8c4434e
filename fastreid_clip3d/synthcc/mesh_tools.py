"""Small operations on triangle meshes: cutting along a field's zero line, and grids that close to tubes.

Legend: V vertices, F faces, D attributes of a vertex.
"""

from __future__ import annotations

import numpy as np


def cut(attributes: np.ndarray, faces: np.ndarray, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the part of a mesh where a field is >= 0, cutting the faces on the line exactly.

    The field [V] is taken as linear within each face, so an edge crosses the line at one point and a hem is a clean
    polyline. Attributes [V, D] are interpolated to the new vertices; unused vertices are left out.
    """
    inside = field >= 0
    pattern = inside[faces]
    count = pattern.sum(1)
    kept = [faces[count == 3]]
    crossing = faces[(count == 1) | (count == 2)]
    if len(crossing):
        pattern = inside[crossing]
        single = pattern.sum(1) == 1
        # Turn each face so that the vertex which stands alone on its side comes first; the orientation stays.
        alone = np.where(single, pattern.argmax(1), (~pattern).argmax(1))
        turned = np.take_along_axis(crossing, (alone[:, None] + np.arange(3)) % 3, 1)
        less, greater = np.minimum(turned[:, :1], turned[:, 1:]), np.maximum(turned[:, :1], turned[:, 1:])  # [n, 2]
        keys, index = np.unique(less.astype(np.int64) * len(field) + greater, return_inverse=True)
        index = index.reshape(-1, 2) + len(attributes)
        low, high = keys // len(field), keys % len(field)
        share = (field[low] / (field[low] - field[high]))[:, None]
        attributes = np.concatenate([attributes, attributes[low] + share * (attributes[high] - attributes[low])])
        first, second = index[:, 0], index[:, 1]
        kept.append(np.stack([turned[:, 0], first, second], 1)[single])
        kept.append(np.stack([first, turned[:, 1], turned[:, 2]], 1)[~single])
        kept.append(np.stack([first, turned[:, 2], second], 1)[~single])
    faces = np.concatenate(kept)
    return compact(attributes, faces)


def compact(attributes: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same faces without the vertices [V, D] that none of them uses."""
    used = np.zeros(len(attributes), dtype=bool)
    used[faces] = True
    return attributes[used], (np.cumsum(used) - 1)[faces]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3], the area-weighted mean of the faces around each vertex."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    rows = faces.reshape(-1)
    normals = np.stack([np.bincount(rows, np.repeat(cross[:, axis], 3), len(vertices)) for axis in range(3)], 1)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def sphere_grid(rows: int, columns: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """A unit sphere as a grid: points [V, 3] and faces [F, 3]; it begins and ends `margin` radians from its poles."""
    around = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    down, turn = np.meshgrid(np.linspace(margin, np.pi - margin, rows), around, indexing="ij")
    points = np.stack([np.sin(down) * np.sin(turn), np.cos(down), np.sin(down) * np.cos(turn)], -1)
    return points.reshape(-1, 3), grid_faces(rows, columns, True)


def grid_faces(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Faces [F, 3] of a grid of vertices numbered row by row; ``closed`` joins the last column to the first."""
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    following = (column + 1) % columns
    a, b = row * columns + column, row * columns + following
    c, d = (row + 1) * columns + column, (row + 1) * columns + following
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
