"""Lengths, girths and volumes of bodies in SMPL's schema, from the T-posed mesh, joints and skinning weights alone.

Shapes: B bodies, V vertices, F faces, E edges, S slices, D directions. Units: metres, cubic metres. y points up.
Body parts are chosen by skinning weight, never by vertex index, so that any mesh with SMPL's 24 joints can be measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from fastreid_clip3d.body.constants import ARM_JOINTS, JOINTS, LEG_JOINTS, NUM_JOINTS
from fastreid_clip3d.errors import ClearError

NUM_DIRECTIONS: int = 64
"""Directions D of a slice's outline; the perimeter's error is below (pi / D)^2 / 3 = 0.08 %."""

_CHUNK: int = 64  # bodies at a time: keeps the working set of a slice inside the processor's cache


class MeasurableBody(Protocol):
    """What is needed of a body model to measure bodies; `fastreid_clip3d.body.BodyModel` has it."""

    weights: Tensor  # [V, 24] skinning weights
    faces: Tensor  # [F, 3] int64

    def joints(self, vertices: Tensor) -> Tensor:
        """Joints [B, 24, 3] of T-posed vertices [B, V, 3]."""


# ------------------------------------------------------------------------------------------------ pure geometry


def mesh_volume(vertices: Tensor, faces: Tensor) -> Tensor:
    """Volumes [B], in cubic units, that meshes of vertices [B, V, 3] and faces [F, 3] of one orientation enclose.

    Signed tetrahedra against the mean vertex, so that small holes do not make the result depend on position.
    """
    x, y, z = (vertices - vertices.mean(dim=1, keepdim=True)).unbind(dim=2)
    first, second, third = faces.unbind(dim=1)
    six_volumes = torch.zeros_like(x[:, first])
    for a, b, c in ((x, y, z), (y, z, x), (z, x, y)):
        six_volumes += (a[:, first] * b[:, second] - b[:, first] * a[:, second]) * c[:, third]
    return six_volumes.sum(dim=1).abs() / 6.0


def unique_edges(faces: Tensor) -> Tensor:
    """Undirected edges [E, 2] int64 of triangles [F, 3], each once, the smaller index first."""
    pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    low, high = pairs.sort(dim=1).values.unbind(dim=1)
    count = int(faces.max()) + 1 if len(faces) else 1
    codes = torch.unique(low * count + high)  # far faster than unique rows
    return torch.stack([codes // count, codes % count], dim=1)


def part_edges(faces: Tensor, weights: Tensor, joints: Sequence[int]) -> Tensor:
    """Edges [E, 2] of the faces [F, 3] whose vertices all follow `joints` with more than half their weights [V, 24]."""
    inside = weights[:, list(joints)].sum(dim=1) > 0.5
    return unique_edges(faces[inside[faces].all(dim=1)])


def slice_supports(
    vertices: Tensor,
    edges: Tensor,
    points: Tensor,
    normals: Tensor,
    first_axes: Tensor | None = None,
    num_directions: int = NUM_DIRECTIONS,
) -> tuple[Tensor, Tensor]:
    """Cuts meshes with parallel planes and says, for each cut, how far it extends along each of D / 2 directions.

    Args:
        vertices: [B, V, 3].
        edges: [E, 2] int64, the part of the mesh to cut.
        points: [B, S, 3], a point of each plane.
        normals: [B, 3], any length but zero; the S planes of a body share it.
        first_axes: [B, 3], where the fan begins; made orthogonal to the normal. By default any direction.
        num_directions: D, a multiple of 4. Direction k is 2 pi k / D from the first axis towards its cross product
            with the normal, which direction D / 4 is.

    Returns:
        The least and the greatest coordinate along each direction, each [B, S, D / 2] in units of the vertices; where
        a plane misses the edges the least is +inf and the greatest -inf.
    """
    if num_directions < 4 or num_directions % 4:
        raise ValueError(f"num_directions must be a multiple of 4, got {num_directions}")
    normal = torch.nn.functional.normalize(normals, dim=1)
    if first_axes is None:
        smallest = normal.abs().argmin(dim=1, keepdim=True)
        first_axes = torch.zeros_like(normal).scatter_(1, smallest, 1.0)
    second = torch.nn.functional.normalize(torch.linalg.cross(first_axes, normal), dim=1)
    first = torch.linalg.cross(normal, second)
    angles = torch.arange(num_directions // 2, dtype=vertices.dtype, device=vertices.device)
    angles = angles * (2 * math.pi / num_directions)
    fan = torch.stack([angles.cos(), angles.sin()])  # [2, D / 2]

    used, local = torch.unique(edges, return_inverse=True)
    part = vertices[:, used]
    heights = torch.einsum("bvc,bc->bv", part, normal)
    levels = torch.einsum("bsc,bc->bs", points, normal)
    coordinates = torch.einsum("bvc,bac->bva", part, torch.stack([first, second], dim=1))
    slices = [_one_slice(coordinates, heights - levels[:, s : s + 1], local, fan) for s in range(levels.shape[1])]
    return torch.stack([least for least, _ in slices], dim=1), torch.stack([most for _, most in slices], dim=1)


def hull_perimeters(least: Tensor, most: Tensor) -> Tensor:
    """Perimeters [B, S] of convex sets that reach from `least` to `most` [B, S, D / 2]; 0 where there is nothing.

    Cauchy: the perimeter of a convex set is the integral of its width over half a turn.
    """
    widths = torch.where(most >= least, most - least, torch.zeros_like(most))
    return widths.mean(dim=2) * math.pi


def slice_hull_perimeters(
    vertices: Tensor, edges: Tensor, points: Tensor, normals: Tensor, num_directions: int = NUM_DIRECTIONS
) -> Tensor:
    """Convex-hull perimeters [B, S] of plane slices, what a tape measure reads; arguments as `slice_supports`."""
    return hull_perimeters(*slice_supports(vertices, edges, points, normals, num_directions=num_directions))


def _one_slice(coordinates: Tensor, signed: Tensor, edges: Tensor, combine: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest [B, D] over the points where `signed` [B, V] changes sign along edges [E, 2]."""
    lowest, highest = signed.amin(dim=0), signed.amax(dim=0)
    may_cross = (torch.minimum(lowest[edges[:, 0]], lowest[edges[:, 1]]) < 0) & (
        torch.maximum(highest[edges[:, 0]], highest[edges[:, 1]]) >= 0
    )
    edges = edges[may_cross]
    above = signed >= 0
    body, edge = (above[:, edges[:, 0]] != above[:, edges[:, 1]]).nonzero(as_tuple=True)
    start, end = edges[edge, 0], edges[edge, 1]
    before, after = signed[body, start], signed[body, end]
    share = (before / (before - after)).unsqueeze(1)
    reach = torch.lerp(coordinates[body, start], coordinates[body, end], share) @ combine  # [T, D]
    index = body.unsqueeze(1).expand_as(reach)
    least = reach.new_full((signed.shape[0], combine.shape[1]), torch.inf)
    most = torch.full_like(least, -torch.inf)
    return least.scatter_reduce_(0, index, reach, "amin"), most.scatter_reduce_(0, index, reach, "amax")


# ------------------------------------------------------------------------------------------------ a person's measures


def _measure(unit: str, meaning: str) -> Any:
    return field(metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True)
class Measurements:
    """Measurements of B bodies, each a tensor [B]. Limbs are means of left and right; girths are hull perimeters."""

    stature: Tensor = _measure("m", "sole to crown")
    volume: Tensor = _measure("m3", "volume enclosed by the skin")
    hip_height: Tensor = _measure("m", "sole to hip joints")
    waist_height: Tensor = _measure("m", "sole to the waist, the narrowest part of the trunk seen from the front")
    torso_length: Tensor = _measure("m", "hip joints to neck joint, along y")
    neck_length: Tensor = _measure("m", "neck joint to head joint")
    upper_arm_length: Tensor = _measure("m", "shoulder joint to elbow joint")
    forearm_length: Tensor = _measure("m", "elbow joint to wrist joint")
    shoulder_breadth: Tensor = _measure("m", "between the shoulder joints")
    chest_breadth: Tensor = _measure("m", "greatest breadth of the chest without arms")
    bust_protrusion: Tensor = _measure("m", "how far the bust stands out of the line from rib cage to collarbone")
    chest_girth: Tensor = _measure("m", "greatest girth of the chest without arms")
    bust_girth: Tensor = _measure("m", "greatest girth at the bust's height, below the armpits")
    upper_chest_girth: Tensor = _measure("m", "girth under the armpits, above the bust, without arms")
    underbust_girth: Tensor = _measure("m", "girth of the rib cage below the bust")
    waist_girth: Tensor = _measure("m", "least girth of the trunk")
    belly_girth: Tensor = _measure("m", "greatest girth between hips and waist")
    hip_girth: Tensor = _measure("m", "greatest girth around the hip joints")
    trunk_girth: Tensor = _measure("m", "mean girth from hips to chest")
    thigh_girth: Tensor = _measure("m", "greatest girth in the middle of the thigh")
    calf_girth: Tensor = _measure("m", "greatest girth of the lower leg")
    upper_arm_girth: Tensor = _measure("m", "greatest girth in the middle of the upper arm")
    forearm_girth: Tensor = _measure("m", "greatest girth of the forearm")
    wrist_girth: Tensor = _measure("m", "girth just above the wrist")

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names in their order."""
        return tuple(f.name for f in fields(Measurements))

    @staticmethod
    def unit(name: str) -> str:
        """ "m" or "m3"."""
        return Measurements.__dataclass_fields__[name].metadata["unit"]

    @staticmethod
    def meaning(name: str) -> str:
        """What is measured, in a few words."""
        return Measurements.__dataclass_fields__[name].metadata["meaning"]


_SIDES = ("left_", "right_")

# Slices along the trunk: 0 at the hip joints, 1 at the shoulder joints.
_TRUNK_LEVELS = tuple(round(-0.2 + 0.05 * step, 2) for step in range(22))
_HIP, _BELLY, _WAIST = (-0.2, 0.2), (0.2, 0.45), (0.2, 0.65)
_UNDERBUST, _BUST, _BUST_FRONT, _CHEST = (0.45, 0.5), (0.55, 0.7), (0.55, 0.75), (0.55, 0.85)
_BELOW_BUST, _ABOVE_BUST = 0.45, 0.85  # ends of the line that the bust stands out of
_WAIST_SOFTNESS = 0.02  # breadths within this share of the least one count as waist: keeps its height from jumping

# Slices along a limb: 0 at the joint nearer the trunk, 1 at the next.
_UPPER_ARM_LEVELS, _FOREARM_LEVELS, _WRIST_LEVEL = (0.4, 0.5, 0.6), (0.15, 0.25, 0.35), 0.92
_THIGH_LEVELS, _CALF_LEVELS = (0.3, 0.4, 0.5), (0.2, 0.3, 0.4)


def measure(vertices: Tensor, body_model: MeasurableBody) -> Measurements:
    """Measures T-posed bodies.

    Args:
        vertices: [B, V, 3] metres, y up; at any place on the ground, turned about y by any angle.
        body_model: gives joints, skinning weights and faces of the same topology.

    Raises:
        ClearError: wrong shape, numbers that are not finite, no T-pose, or planes that miss the body.
    """
    vertices = check_vertices(vertices, body_model)
    weights, faces = body_model.weights.to(vertices), body_model.faces.to(vertices.device)
    parts = {"trunk": part_edges(faces, weights, [j for j in range(NUM_JOINTS) if j not in ARM_JOINTS])}
    for place, side in enumerate(_SIDES):
        parts[side + "arm"] = part_edges(faces, weights, ARM_JOINTS[place::2])
        parts[side + "leg"] = part_edges(faces, weights, LEG_JOINTS[place::2])
    joints = body_model.joints(vertices)
    _check_t_pose(joints)
    chunks = [
        _measure_chunk(v, j, faces, parts) for v, j in zip(vertices.split(_CHUNK), joints.split(_CHUNK), strict=True)
    ]
    measured = {name: torch.cat([chunk[name] for chunk in chunks]) for name in Measurements.names()}
    for name, values in measured.items():
        bad = ~torch.isfinite(values) | (values <= 0) & (name != "bust_protrusion")
        if bad.any():
            raise ClearError(
                f"body {int(bad.nonzero()[0])}: {name} ({Measurements.meaning(name)}) cannot be measured, got "
                f"{float(values[bad][0]):.3g}; give a closed body of SMPL's topology in the T-pose, in metres, y up"
            )
    return Measurements(**measured)


def check_vertices(vertices: Tensor, body_model: MeasurableBody) -> Tensor:
    """Returns vertices [B, V, 3] in the body model's dtype or raises ClearError with what was wanted and given."""
    wanted = body_model.weights.shape[0]
    if vertices.ndim != 3 or vertices.shape[2] != 3 or vertices.shape[1] != wanted:
        raise ClearError(
            f"vertices: wanted [B, {wanted}, 3], the body model's topology, got {list(vertices.shape)}; bodies of "
            "another topology need their own body model"
        )
    if vertices.shape[0] == 0:
        raise ClearError("vertices: no body to measure, got a batch of 0")
    vertices = vertices.to(body_model.weights.dtype)
    finite = torch.isfinite(vertices).flatten(1).all(dim=1)
    if not finite.all():
        raise ClearError(
            f"vertices: body {int((~finite).nonzero()[0])} of {len(finite)} has NaN or infinite coordinates; "
            "check how it was made or read"
        )
    return vertices


def _check_t_pose(joints: Tensor) -> None:
    """Refuses bodies whose arms are not level or whose legs are not down: their measures would be wrong."""
    for side in _SIDES:
        arm = joints[:, JOINTS[side + "wrist"]] - joints[:, JOINTS[side + "shoulder"]]
        leg = joints[:, JOINTS[side + "hip"]] - joints[:, JOINTS[side + "ankle"]]
        slope = arm[:, 1].abs() / arm.norm(dim=1).clamp_min(1e-9)
        upright = leg[:, 1] / leg.norm(dim=1).clamp_min(1e-9)
        bad = (slope > 0.35) | (upright < 0.9)
        if bad.any():
            raise ClearError(
                f"body {int(bad.nonzero()[0])} is not in the T-pose with y up ({side.rstrip('_')} arm not level or leg "
                "not upright); measure the unposed body, in SMPL's axes"
            )


def _measure_chunk(vertices: Tensor, joints: Tensor, faces: Tensor, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    def joint(name: str) -> Tensor:
        return joints[:, JOINTS[name]]

    def middle(name: str) -> Tensor:
        return (joint("left_" + name) + joint("right_" + name)) / 2

    def length(upper: str, lower: str) -> Tensor:
        return sum((joint(s + upper) - joint(s + lower)).norm(dim=1) for s in _SIDES) / 2

    def girths(limb: str, upper: str, lower: str, levels: Sequence[float]) -> Tensor:
        share = joints.new_tensor(levels)[None, :, None]
        both = []
        for side in _SIDES:
            start, bone = joint(side + upper), joint(side + lower) - joint(side + upper)
            points = start[:, None] + share * bone[:, None]
            both.append(slice_hull_perimeters(vertices, parts[side + limb], points, bone))
        return (both[0] + both[1]) / 2

    up = joints.new_tensor([0.0, 1.0, 0.0]).expand(len(joints), 3)
    across = joint("left_shoulder") - joint("right_shoulder")
    floor, crown = vertices[..., 1].amin(dim=1), vertices[..., 1].amax(dim=1)
    hip_y, shoulder_y = middle("hip")[:, 1], middle("shoulder")[:, 1]

    levels = joints.new_tensor(_TRUNK_LEVELS)
    level_y = hip_y[:, None] + levels * (shoulder_y - hip_y)[:, None]  # [B, S]
    points = level_y[..., None] * up[:, None]
    least, most = slice_supports(vertices, parts["trunk"], points, up, first_axes=across)
    trunk = hull_perimeters(least, most)
    breadth, front = most[..., 0] - least[..., 0], most[..., NUM_DIRECTIONS // 4]  # to the left, and forwards

    def zone(limits: tuple[float, float]) -> list[int]:
        return [s for s, level in enumerate(_TRUNK_LEVELS) if limits[0] <= level <= limits[1]]

    below, above = _TRUNK_LEVELS.index(_BELOW_BUST), _TRUNK_LEVELS.index(_ABOVE_BUST)
    way = (levels - _BELOW_BUST) / (_ABOVE_BUST - _BELOW_BUST)
    line = torch.lerp(front[:, below, None], front[:, above, None], way)  # [B, S], from rib cage to collarbone
    waist = breadth[:, zone(_WAIST)]
    waist_share = torch.softmax((1 - waist / waist.amin(dim=1, keepdim=True)) / _WAIST_SOFTNESS, dim=1)
    forearm = girths("arm", "elbow", "wrist", (*_FOREARM_LEVELS, _WRIST_LEVEL))
    return {
        "stature": crown - floor,
        "volume": mesh_volume(vertices, faces),
        "hip_height": hip_y - floor,
        "waist_height": (waist_share * level_y[:, zone(_WAIST)]).sum(dim=1) - floor,
        "torso_length": joint("neck")[:, 1] - hip_y,
        "neck_length": (joint("head") - joint("neck")).norm(dim=1),
        "upper_arm_length": length("shoulder", "elbow"),
        "forearm_length": length("elbow", "wrist"),
        "shoulder_breadth": across.norm(dim=1),
        "chest_breadth": breadth[:, zone(_CHEST)].amax(dim=1),
        "bust_protrusion": (front - line)[:, zone(_BUST_FRONT)].amax(dim=1),
        "chest_girth": trunk[:, zone(_CHEST)].amax(dim=1),
        "bust_girth": trunk[:, zone(_BUST)].amax(dim=1),
        "upper_chest_girth": trunk[:, above],
        "underbust_girth": trunk[:, zone(_UNDERBUST)].amin(dim=1),
        "waist_girth": trunk[:, zone(_WAIST)].amin(dim=1),
        "belly_girth": trunk[:, zone(_BELLY)].amax(dim=1),
        "hip_girth": trunk[:, zone(_HIP)].amax(dim=1),
        "trunk_girth": trunk.mean(dim=1),
        "thigh_girth": girths("leg", "hip", "knee", _THIGH_LEVELS).amax(dim=1),
        "calf_girth": girths("leg", "knee", "ankle", _CALF_LEVELS).amax(dim=1),
        "upper_arm_girth": girths("arm", "shoulder", "elbow", _UPPER_ARM_LEVELS).amax(dim=1),
        "forearm_girth": forearm[:, :-1].amax(dim=1),
        "wrist_girth": forearm[:, -1],
    }
