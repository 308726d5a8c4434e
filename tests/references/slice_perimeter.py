"""Slow reference for slice girths: trimesh cuts the mesh, SciPy builds the convex hull."""

from __future__ import annotations

import numpy as np
import scipy.spatial
import trimesh


def slice_perimeter(vertices: np.ndarray, faces: np.ndarray, point: np.ndarray, normal: np.ndarray) -> float:
    """Perimeter of the convex hull of one plane slice; vertices [V, 3], faces [F, 3], point [3], normal [3]."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    cut = mesh.section(plane_origin=point, plane_normal=normal)
    if cut is None:
        return 0.0
    flat = np.asarray(cut.vertices) @ np.linalg.svd(np.asarray(normal, dtype=float)[None])[2][1:].T
    return float(scipy.spatial.ConvexHull(flat).area)  # in the plane, SciPy's "area" is the perimeter
