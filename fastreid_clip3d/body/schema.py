"""Checks a body model's fields and brings them to one form, whichever file they came from.

Shape letters: V vertices, F faces, K shape components, J joints of the file (24 SMPL, 52 SMPL-H, 55 SMPL-X).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from fastreid_clip3d.body.constants import NUM_JOINTS
from fastreid_clip3d.errors import ClearError

REQUIRED = ("v_template", "shapedirs", "J_regressor", "weights", "f", "kintree_table")
OPTIONAL = ("posedirs",)

_BODY_JOINTS = 22  # shared by SMPL, SMPL-H and SMPL-X, in one order
_STATURE_RANGE = (0.4, 2.8)  # metres, from infants to giants
_POSE_COMPONENTS = 9 * (NUM_JOINTS - 1)
_STAR_POSE_COMPONENTS = 4 * (NUM_JOINTS - 1) + 1  # a quaternion per joint, and the second shape coefficient

# For each SMPL joint: the file's joint that gives its place, and the file's joints whose skin moves with it.
_FOLDS: dict[int, dict[int, tuple]] = {
    52: {22: (25, range(22, 37)), 23: (40, range(37, 52))},
    55: {15: (15, (22, 23, 24)), 22: (28, range(25, 40)), 23: (43, range(40, 55))},
}


@dataclass(frozen=True)
class Fields:
    """A body model's arrays after the checks; see :class:`fastreid_clip3d.body.model.BodyModel` for their meaning."""

    v_template: np.ndarray  # float64 [V, 3]
    shapedirs: np.ndarray  # float64 [V, 3, K]
    posedirs: np.ndarray  # float64 [V, 3, 207] or [V, 3, 0]
    J_regressor: np.ndarray  # float64 [24, V]
    weights: np.ndarray  # float64 [V, 24]
    faces: np.ndarray  # int64 [F, 3]
    parents: np.ndarray  # int64 [24], -1 for the root


def check_fields(arrays: Mapping[str, np.ndarray], source: str, num_betas: int) -> Fields:
    """Checks `arrays` (SMPL's field names) and returns them with `num_betas` shape components and 24 joints.

    Raises:
        ClearError: names `source`, the field, what was wanted and what was given.
    """
    check = _Check(source)
    coordinates, pose_components = (np.size(arrays.get(name, ())) for name in ("v_template", "posedirs"))
    if 0 < pose_components == _STAR_POSE_COMPONENTS * coordinates:
        raise star_error(source)
    for name in REQUIRED:
        if name not in arrays:
            check.fail(name, "to be present", f"only {', '.join(sorted(arrays)) or 'nothing'}")

    v_template = check.floats("v_template", arrays["v_template"], ("V", 3))
    vertices = len(v_template)
    shapedirs = check.floats("shapedirs", arrays["shapedirs"], (vertices, 3, "K"))
    weights = check.floats("weights", arrays["weights"], (vertices, "J"))
    joints = weights.shape[1]
    if joints != NUM_JOINTS and joints not in _FOLDS:
        check.fail("weights", "24 joints (SMPL), 52 (SMPL-H) or 55 (SMPL-X)", f"{joints}")
    _check_num_betas(source, num_betas, shapedirs.shape[2], joints)
    if weights.min() < -1e-6:
        check.fail("weights", "no negative weight", f"{weights.min():.4g} at vertex {weights.min(1).argmin()}")
    sums = weights.sum(1)
    if np.abs(sums - 1.0).max() > 1e-3:
        worst = int(np.abs(sums - 1.0).argmax())
        check.fail("weights", "rows that sum to 1", f"a sum of {sums[worst]:.4g} at vertex {worst}")
    regressor = check.floats("J_regressor", arrays["J_regressor"], (joints, vertices))
    if np.abs(regressor.sum(1) - 1.0).max() > 1e-2:
        worst = int(np.abs(regressor.sum(1) - 1.0).argmax())
        check.fail("J_regressor", "rows that sum to 1", f"a sum of {regressor[worst].sum():.4g} for joint {worst}")
    faces = check.whole("f", arrays["f"], ("F", 3))
    if faces.min() < 0 or faces.max() >= vertices:
        check.fail("f", f"vertex numbers from 0 to {vertices - 1}", f"numbers from {faces.min()} to {faces.max()}")
    parents = _parents(check, arrays["kintree_table"], joints)
    posedirs = np.zeros((vertices, 3, 0))
    if "posedirs" in arrays and joints == NUM_JOINTS:
        given = np.asarray(arrays["posedirs"])
        if given.shape[-1:] != (0,):
            posedirs = check.floats("posedirs", given, (vertices, 3, _POSE_COMPONENTS))

    if joints != NUM_JOINTS:
        regressor, weights, parents = _fold(regressor, weights, parents, _FOLDS[joints])
    used = np.unique(faces)
    _check_stature(check, v_template[used])
    return Fields(
        v_template=v_template,
        shapedirs=np.ascontiguousarray(shapedirs[:, :, :num_betas]),
        posedirs=posedirs,
        J_regressor=regressor,
        weights=weights,
        faces=faces,
        parents=parents,
    )


def star_error(source: str) -> ClearError:
    """The error for a STAR model at `source`."""
    return ClearError(
        f"{source} is a STAR model. STAR is not supported, because its pose blend shapes differ from SMPL's. Give "
        "SMPL, SMPL-H or SMPL-X files, or leave the path empty for the embedded model."
    )


def _check_num_betas(source: str, num_betas: int, components: int, joints: int) -> None:
    """Refuses more shape components than a file has; SMPL-X files keep expressions behind the shapes."""
    if num_betas < 1:
        raise ClearError(f"num_betas must be at least 1, not {num_betas}.")
    shapes = components
    if joints == 55:  # the rule of the smplx library: 300 + 100 components, or 10 + 10 in the first release
        shapes = 300 if components >= 400 else min(10, components)
    if num_betas > shapes:
        rest = f" (the other {components - shapes} of its {components} components are expressions)"
        raise ClearError(
            f"{source}: field 'shapedirs': wanted at least {num_betas} shape components (num_betas), given {shapes}"
            f"{rest if shapes < components else ''}. Give a body model with more; a training can also set "
            f"MODEL.BODY.NUM_BETAS to at most {shapes}."
        )


class _Check:
    """Conversions that fail with the file, the field, what was wanted and what was given."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, name: str, wanted: str, given: str) -> NoReturn:
        raise ClearError(
            f"{self.source} is no usable body model: field '{name}': wanted {wanted}, given {given}. "
            "Take an unchanged file from https://smpl.is.tue.mpg.de, or leave the path empty for the embedded model."
        )

    def floats(self, name: str, values: object, shape: tuple[int | str, ...]) -> np.ndarray:
        array = self._array(name, values, shape, kinds="fiu")
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            place = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            self.fail(name, "finite numbers", f"{array[tuple(place)]} at {place}")
        return array

    def whole(self, name: str, values: object, shape: tuple[int | str, ...]) -> np.ndarray:
        return self._array(name, values, shape, kinds="iu").astype(np.int64)

    def _array(self, name: str, values: object, shape: tuple[int | str, ...], kinds: str) -> np.ndarray:
        array = np.asarray(values)
        wanted = f"[{', '.join(map(str, shape))}]"
        if array.dtype.kind not in kinds:
            self.fail(name, f"numbers of shape {wanted}", f"an array of type {array.dtype}")
        fits = array.ndim == len(shape) and all(isinstance(w, str) or w == n for w, n in zip(shape, array.shape))
        if not fits or 0 in array.shape:
            self.fail(name, f"shape {wanted}", f"shape {list(array.shape)}")
        return array


def _parents(check: _Check, values: object, joints: int) -> np.ndarray:
    """Parents int64 [J], -1 for the root, of a tree in which every parent comes before its children."""
    table = check.whole("kintree_table", values, (2, joints))
    parents = table[0].copy()
    if parents[0] not in (-1, 2**32 - 1):
        check.fail("kintree_table", "the root first, with parent -1 (or 2**32 - 1)", f"parent {parents[0]}")
    parents[0] = -1
    for joint in range(1, joints):
        if not 0 <= parents[joint] < joint:
            wanted = "a tree: for each joint after the root a parent that comes before it"
            check.fail("kintree_table", wanted, f"parent {parents[joint]} for joint {joint}")
    return parents


def _fold(
    regressor: np.ndarray, weights: np.ndarray, parents: np.ndarray, fold: Mapping[int, tuple]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A larger skeleton as SMPL's 24 joints: fingers follow the hand, jaw and eyes the head."""
    body = [*range(_BODY_JOINTS), fold[22][0], fold[23][0]]
    folded = np.zeros((len(weights), NUM_JOINTS))
    folded[:, :_BODY_JOINTS] = weights[:, :_BODY_JOINTS]
    for joint, (_, followers) in fold.items():
        folded[:, joint] += weights[:, list(followers)].sum(1)
    return regressor[body], folded, np.concatenate([parents[:_BODY_JOINTS], [20, 21]])


def _check_stature(check: _Check, vertices: np.ndarray) -> None:
    low, high = _STATURE_RANGE
    stature = float(np.ptp(vertices[:, 1]))
    if low <= stature <= high:
        return
    hint = ""
    units = {"centimetres": 100.0, "millimetres": 1000.0, "inches": 1.0 / 0.0254, "feet": 1.0 / 0.3048}
    for unit, factor in units.items():
        if 1.2 <= stature / factor <= 2.2:
            hint = f": it looks like {unit}"
            break
    if not hint and low <= float(np.ptp(vertices[:, 2])) <= high:
        hint = ": the body seems to lie, y should point up"
    check.fail("v_template", f"a stature of {low} to {high} metres along y", f"{stature:.4g}{hint}")
