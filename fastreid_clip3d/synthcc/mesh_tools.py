"""Small operations on triangle meshes: cutting along a field's zero line, and grids that close to tubes.

Legend: V vertices, F faces, D attributes of a vertex.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def cut(
    attributes: np.ndarray, faces: np.ndarray, points: np.ndarray, rule: Callable[[np.ndarray], list[np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keeps the part of a mesh where all fields are >= 0, cutting the faces on their zero lines exactly.

    `rule(points)` gives the fields, [V] each, of points [V, 3], one for each vertex. A field is taken as linear within
    each face, so an edge crosses the line at one point and a hem is a clean polyline.

    Returns:
        Attributes [V', D], interpolated to the new vertices, without unused vertices; faces [F', 3]; the least field of
        each vertex [V'].
    """
    used = np.zeros(len(attributes), dtype=bool)
    used[faces] = True
    origin = np.flatnonzero(used)
    faces = (np.cumsum(used) - 1)[faces]
    points = points.take(origin, 0)
    fields = np.stack(rule(points))
    # Attributes are interpolated at the end, since most of the mesh is cut away.
    steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for number in range(len(fields)):
        faces, low, high = _cut_faces(faces, fields[number] >= 0)
        if len(low):
            share = (fields[number, low] / (fields[number, low] - fields[number, high]))[:, None]
            steps.append((low, high, share))
            new = points[low] + share * (points[high] - points[low])
            points = np.concatenate([points, new])
            fields = np.concatenate([fields, np.stack(rule(new))], 1)
    used = np.zeros(len(points), dtype=bool)
    used[faces] = True
    needed = used.copy()
    for low, high, _ in steps:
        needed[low] = needed[high] = True
    needed[len(origin) :] = True
    place = np.cumsum(needed) - 1
    found = np.empty((int(needed.sum()), attributes.shape[1]), dtype=attributes.dtype)
    stop = int(needed[: len(origin)].sum())
    found[:stop] = attributes.take(origin[needed[: len(origin)]], 0)
    for low, high, share in steps:
        start, stop = stop, stop + len(low)
        first = found[place[low]]
        found[start:stop] = first + share * (found[place[high]] - first)
    return found.take(place[used], 0), (np.cumsum(used) - 1)[faces], fields[:, used].min(0)


def _cut_faces(faces: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is left of faces [F, 3] if the vertices [V] that are not `inside` are cut off.

    Also the ends of the edges, int64 [n] and [n], on which the new vertices V, V + 1, ... lie.
    """
    pattern = inside[faces]
    count = pattern.sum(1)
    kept = [faces[count == 3]]
    place = np.flatnonzero((count == 1) | (count == 2))
    if not len(place):
        return kept[0], place, place
    crossing, pattern = faces[place], pattern[place]
    single = count[place] == 1
    # Turn each face so that the vertex which stands alone on its side comes first; the orientation stays.
    alone = np.where(single, pattern.argmax(1), (~pattern).argmax(1))
    turned = np.take_along_axis(crossing, (alone[:, None] + np.arange(3)) % 3, 1)
    less, greater = np.minimum(turned[:, :1], turned[:, 1:]), np.maximum(turned[:, :1], turned[:, 1:])  # [n, 2]
    keys, index = np.unique(less.astype(np.int64) * len(inside) + greater, return_inverse=True)
    index = index.reshape(-1, 2) + len(inside)
    first, second = index[:, 0], index[:, 1]
    kept.append(np.stack([turned[:, 0], first, second], 1)[single])
    kept.append(np.stack([first, turned[:, 1], turned[:, 2]], 1)[~single])
    kept.append(np.stack([first, turned[:, 2], second], 1)[~single])
    return np.concatenate(kept), keys // len(inside), keys % len(inside)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals float64 [V, 3], the area-weighted mean of the faces around each vertex."""
    (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = (vertices.take(corner, 0).T for corner in faces.T)
    ax, ay, az, bx, by, bz = x1 - x0, y1 - y0, z1 - z0, x2 - x0, y2 - y0, z2 - z0
    rows = faces.T.reshape(-1)
    crosses = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    normals = np.stack([np.bincount(rows, np.tile(cross, 3), len(vertices)) for cross in crosses])
    return (normals / np.maximum(np.sqrt((normals * normals).sum(0)), 1e-12)).T


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
