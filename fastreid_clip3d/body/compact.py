"""The embedded file's format: several models of one topology in one small npz, integers with a scale.

Shape letters: V vertices, F faces, K shape components. Coordinates are kept to a few hundredths of a millimetre.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastreid_clip3d.common.files import write_atomically

FORMAT_VERSION = 1
_STEPS = 32767  # int16
_WEIGHT_STEPS = 65535  # uint16


def pack(models: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Turns fields in SMPL's names, by gender, into small arrays for one npz.

    The models share ``f``, ``weights`` and ``kintree_table``; each brings its own ``v_template`` [V, 3], ``shapedirs``
    [V, 3, K] and ``J_regressor`` [24, V].
    """
    shared = next(iter(models.values()))
    arrays: dict[str, np.ndarray] = {
        "format_version": np.array(FORMAT_VERSION, dtype=np.int16),
        "faces": shared["f"].astype(np.uint16),
        "parents": np.concatenate([[-1], shared["kintree_table"][0, 1:]]).astype(np.int8),
        "weights": _whole_steps(shared["weights"]),
    }
    for gender, fields in models.items():
        arrays[f"{gender}_template"], arrays[f"{gender}_template_scale"] = _quantise(fields["v_template"])
        components = np.moveaxis(fields["shapedirs"], -1, 0)  # [K, V, 3]
        packed = [_quantise(component) for component in components]
        arrays[f"{gender}_shapedirs"] = np.stack([integers for integers, _ in packed])
        arrays[f"{gender}_shapedirs_scale"] = np.stack([scale for _, scale in packed])
        joints, vertices = np.nonzero(fields["J_regressor"])
        arrays[f"{gender}_regressor_joint"] = joints.astype(np.uint8)
        arrays[f"{gender}_regressor_vertex"] = vertices.astype(np.uint16)
        arrays[f"{gender}_regressor_value"] = fields["J_regressor"][joints, vertices].astype(np.float32)
    return arrays


def unpack(arrays: Mapping[str, np.ndarray], gender: str) -> dict[str, np.ndarray]:
    """The inverse of :func:`pack` for one gender: fields in SMPL's names, float64."""
    weights = arrays["weights"] / float(_WEIGHT_STEPS)
    parents = arrays["parents"].astype(np.int64)
    regressor = np.zeros((len(parents), len(weights)))
    joint = arrays[f"{gender}_regressor_joint"].astype(np.int64)
    vertex = arrays[f"{gender}_regressor_vertex"].astype(np.int64)
    regressor[joint, vertex] = arrays[f"{gender}_regressor_value"]
    components = arrays[f"{gender}_shapedirs"] * arrays[f"{gender}_shapedirs_scale"][:, None, None]
    return {
        "v_template": arrays[f"{gender}_template"] * arrays[f"{gender}_template_scale"],
        "shapedirs": np.ascontiguousarray(np.moveaxis(components, 0, -1)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights,
        "f": arrays["faces"].astype(np.int64),
        "kintree_table": np.stack([parents, np.arange(len(parents))]),
    }


def save(arrays: Mapping[str, Any], path: Path) -> None:
    """Writes the arrays as one compressed npz; the file appears whole or not at all."""
    write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))


def _quantise(values: np.ndarray) -> tuple[np.ndarray, Any]:
    """int16 values and the scale, float64, that gives the originals back."""
    scale = np.float64(np.abs(values).max() / _STEPS)
    return np.rint(values / scale).astype(np.int16), scale


def _whole_steps(weights: np.ndarray) -> np.ndarray:
    """Rows that sum to 1 as uint16 that sum to 65535 exactly: the rounding's remainder goes to the largest weight."""
    steps = np.rint(weights * _WEIGHT_STEPS).astype(np.int64)
    rows = np.arange(len(steps))
    steps[rows, steps.argmax(1)] += _WEIGHT_STEPS - steps.sum(1)
    return steps.astype(np.uint16)
