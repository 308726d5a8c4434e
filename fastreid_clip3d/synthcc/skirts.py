"""Skirts, dresses and coat tails: tubes that hang around the posed legs and never cut through them.

For every height of the tube and every direction, the furthest point of hips and legs (their support function) is the
least that the cloth may reach. From there it hangs, flares and folds. This happens after posing, so a stride spreads
the skirt.

Legend: R rows from waist to hem, K directions around.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fastreid_clip3d.synthcc.figure import Landmarks
from fastreid_clip3d.synthcc.mesh_tools import grid_faces

ROWS, DIRECTIONS = 14, 40


@dataclasses.dataclass(frozen=True)
class Tube:
    """What hangs from the waist."""

    part: int
    start: float  # metres above the hip joints
    length: float  # share of the way from the hips to the ankles
    flare: float  # metres by which the radius grows from the first row to the last
    margin: float  # metres between the legs and the cloth
    opening: float = 0.0  # half-width in metres of an open front
    phase: float = 0.0  # of the folds, 0..1
    tucked: bool = True  # the first rows lie close, so that the tube comes out of the garment above without a step
    hidden_above: float = 9.0  # metres above the hip joints: what lies higher is below a coat
    window: float = 0.0  # half-angle at the front that an open coat leaves visible, radians


@dataclasses.dataclass
class PosedTube:
    """World vertices [V, 3], canonical coordinates [V, 3], distance to the hem [V], faces [F, 3]."""

    vertices: np.ndarray
    canonical: np.ndarray
    edge: np.ndarray
    faces: np.ndarray


def hang(
    tube: Tube,
    below: np.ndarray,
    hips: np.ndarray,
    pelvis: np.ndarray,
    rotation: np.ndarray,
    leg_length: float,
    marks: Landmarks,
) -> PosedTube:
    """Hangs a tube around the world points [n, 3] of hips and legs.

    Heights count from `hips` [3], the middle of the hip joints; the axis goes through the joint `pelvis` [3], and the
    tube turns about it as the pelvis' `rotation` [3, 3] does. `leg_length` is hips to ankles of this person, metres.
    """
    forward = rotation @ np.array([0.0, 0.0, 1.0])
    forward = np.array([forward[0], 0.0, forward[2]]) / max(np.hypot(forward[0], forward[2]), 1e-6)
    left = np.array([forward[2], 0.0, -forward[0]])
    local = np.stack([(below - pelvis) @ left, below[:, 1] - hips[1], (below - pelvis) @ forward], 1)
    heights = np.linspace(tube.start, -tube.length * leg_length, ROWS)
    spacing = heights[0] - heights[1]
    if tube.opening:
        angle = np.linspace(tube.opening / 0.16, 2 * np.pi - tube.opening / 0.16, DIRECTIONS)
    else:
        angle = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    directions = np.stack([np.sin(angle), np.cos(angle)])
    reach = local[:, [0, 2]] @ directions
    radius = np.zeros((ROWS, DIRECTIONS))
    previous = np.full(DIRECTIONS, 0.10)
    keep = 0.965 + 0.2 * min(tube.flare, 0.15)
    for row, height in enumerate(heights):
        near = np.abs(local[:, 1] - height) < max((0.8 if row > 1 or not tube.tucked else 0.45) * spacing, 0.035)
        support = reach[near].max(0) if near.any() else previous * keep
        support = np.maximum(support, 0.06)
        if not tube.opening:
            support = (np.roll(support, 1) + 2 * support + np.roll(support, -1)) / 4
        fall = row / (ROWS - 1)
        wanted = support + tube.margin * (min(1.0, 0.45 + 3.0 * fall) if tube.tucked else 1.0) + 0.004 * fall
        if row:
            wanted = np.maximum(wanted, previous * keep + tube.flare / ROWS)
        radius[row] = previous = wanted
    # Two passes along the fall take the steps between slabs out of the cloth.
    for _ in range(2):
        radius[1:-1] = np.maximum(radius[1:-1], (radius[:-2] + radius[2:]) / 2)
    share = np.linspace(0, 1, ROWS)[:, None]
    folds = (0.015 + 0.25 * tube.flare) * share * np.sin(9 * angle[None] + 6.28 * tube.phase)
    radius = radius * (1 + folds * np.cos(2 * angle[None] + tube.phase))
    flat = radius[..., None] * directions.T[None]
    vertices = pelvis + flat[..., :1] * left + flat[..., 1:] * forward
    vertices[..., 1] = hips[1] + heights[:, None]
    around = 0.16 + (0.05 + tube.flare) * share  # nearly the cloth's own size, so that a pattern keeps its scale
    up = np.broadcast_to(marks.hip + heights[:, None], radius.shape)
    canonical = np.stack([around * np.sin(angle), up, around * np.cos(angle)], -1)
    edge = np.broadcast_to((heights - heights[-1])[:, None], radius.shape).copy()
    if tube.opening:
        edge[:, [0, -1]] = 0.0
    faces = grid_faces(ROWS, DIRECTIONS, not tube.opening)
    turned = np.abs((angle + np.pi) % (2 * np.pi) - np.pi)
    hidden = ((heights[:, None] > tube.hidden_above) & (turned[None] >= tube.window)).reshape(-1)
    faces = faces[~hidden[faces].all(1)]
    return PosedTube(vertices.reshape(-1, 3), canonical.reshape(-1, 3).copy(), edge.reshape(-1), faces)
