"""Features of a test set on disk: an npz file with features and ids of query and gallery.

Keys: ``query_features`` [Q, D] and ``gallery_features`` [G, D], floating point; ``query_pids``, ``query_camids`` [Q],
``gallery_pids``, ``gallery_camids`` [G], integers of any type; ``query_clothes_ids`` [Q] and ``gallery_clothes_ids``
[G], integers, both or none, -1 where they are not known; ``query_names`` [Q] and ``gallery_names`` [G], texts (image
paths), both or none.
"""

from __future__ import annotations

import logging
import os
import zipfile
import zlib
from dataclasses import replace
from tokenize import TokenError
from typing import Any

import numpy as np
import torch

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.common.near_names import near_names
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.distances import first_non_finite_row
from fastreid_clip3d.evaluation.ranking import LabelledFeatures

logger = logging.getLogger(__name__)

SIDES = ("query", "gallery")
_REQUIRED = ("features", "pids", "camids")
_OPTIONAL = ("clothes_ids", "names")
_KNOWN = [f"{side}_{name}" for side in SIDES for name in _REQUIRED + _OPTIONAL]
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, MemoryError, SyntaxError, TokenError,
)  # fmt: skip


def write_features(path: str | os.PathLike, query: LabelledFeatures, gallery: LabelledFeatures) -> None:
    """Writes such a file, uncompressed, so that a reader needs no memory besides the arrays."""
    arrays: dict[str, Any] = {}
    for side, items in zip(SIDES, (query, gallery)):
        arrays[f"{side}_features"] = items.features.numpy()
        arrays[f"{side}_pids"], arrays[f"{side}_camids"] = items.pids, items.camids
        if query.clothes_ids is not None and gallery.clothes_ids is not None:
            arrays[f"{side}_clothes_ids"] = items.clothes_ids
        if query.names and gallery.names:
            arrays[f"{side}_names"] = np.array(items.names, dtype=np.str_)
    write_atomically(path, lambda stream: np.savez(stream, **arrays))


def read_features(path: str | os.PathLike) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Query and gallery of such a file. Nothing in it is ever unpickled. If the clothes of an item are not known, both
    sides have none.

    Raises:
        ClearError: names the file, and the array and row, of whatever is missing, damaged, of another kind or shape,
            or not finite.
    """
    if not os.path.exists(path):
        raise ClearError(f"{path}: no such file")
    if os.path.isdir(path):
        raise ClearError(f"{path}: is a folder, expected an npz file")
    if os.path.getsize(path) == 0:
        raise ClearError(f"{path}: is empty (0 bytes), expected an npz file")
    try:
        archive = np.load(path, allow_pickle=False)
    except _UNREADABLE as error:
        raise ClearError(f"{path}: is not a complete npz file ({error})") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ClearError(f"{path}: holds a single array, expected an npz file with {', '.join(_KNOWN[:3])}, ...")
    with archive:
        _check_keys(path, archive.files)
        query, gallery = (_read_side(path, archive, side) for side in SIDES)
    if query.features.shape[1] != gallery.features.shape[1]:
        raise ClearError(
            f"{path}: query_features has {query.features.shape[1]} columns, gallery_features "
            f"{gallery.features.shape[1]}; they must be of one model"
        )
    unknown = sum(int((side.clothes_ids == -1).sum()) for side in (query, gallery) if side.clothes_ids is not None)
    if unknown:
        logger.warning(
            f"{path}: {unknown} of {len(query) + len(gallery)} items have the clothes id -1, so their clothes are not "
            "known. We read the file as one without clothes ids."
        )
        query, gallery = replace(query, clothes_ids=None), replace(gallery, clothes_ids=None)
    return query, gallery


def _check_keys(path: str | os.PathLike, keys: list[str]) -> None:
    missing = [f"{side}_{name}" for side in SIDES for name in _REQUIRED if f"{side}_{name}" not in keys]
    for name in _OPTIONAL:
        absent = [f"{side}_{name}" for side in SIDES if f"{side}_{name}" not in keys]
        missing += absent if len(absent) == 1 else []
    if not missing:
        return
    if {"features", "paths", "fingerprint"} <= set(keys):
        raise ClearError(
            f"{path} is a file of `clip3d extract`: it has features and paths, and no person and camera ids to score "
            "them by. Extract the query and gallery of a dataset (`clip3d extract --data DATASET`), for your own "
            "pictures from a CSV file (docs/own_dataset.md)."
        )
    keys = [printable(key) for key in keys]
    unknown = [key for key in keys if key not in _KNOWN]
    hints = [f"{near[0]!r} for {key!r}" for key in missing if (near := near_names(key, unknown, 1))]
    hint = f"; did you write {', '.join(hints)}?" if hints else ""
    raise ClearError(f"{path}: misses {', '.join(missing)}; it holds {', '.join(keys) or 'nothing'}{hint}")


def _read_array(path: str | os.PathLike, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        array = archive[key]
    except _UNREADABLE as error:
        if "allow_pickle" in str(error):
            raise ClearError(
                f"{path}: {key} is an object array, which only unpickling could read; save numbers instead"
            ) from error
        raise ClearError(f"{path}: {key} cannot be read, the file is damaged or cut off ({error})") from error
    if not isinstance(array, np.ndarray):
        raise ClearError(f"{path}: {key} is not a NumPy array")
    return array


def _read_side(path: str | os.PathLike, archive: np.lib.npyio.NpzFile, side: str) -> LabelledFeatures:
    features = _read_array(path, archive, f"{side}_features")
    where = f"{path}: {side}_features"
    if features.dtype.kind != "f" or features.dtype.itemsize > 8:
        raise ClearError(f"{where} is {features.dtype}, expected float16, float32 or float64")
    if features.ndim != 2 or features.shape[1] == 0:
        raise ClearError(f"{where} has shape {features.shape}, expected (items, dimensions)")
    features = np.ascontiguousarray(features.astype(features.dtype.newbyteorder("="), copy=False))
    row = first_non_finite_row(torch.from_numpy(features))
    if row is not None:
        column = int(np.flatnonzero(~np.isfinite(features[row]))[0])
        raise ClearError(
            f"{where}, row {row}: holds {features[row, column]} (column {column}), expected finite numbers"
        )

    ids: dict[str, np.ndarray] = {}
    for name in ("pids", "camids", "clothes_ids"):
        key = f"{side}_{name}"
        if name == "clothes_ids" and key not in archive.files:
            continue
        array = _read_array(path, archive, key)
        if array.dtype.kind not in "iu":
            raise ClearError(f"{path}: {key} is {array.dtype}, expected integers")
        if array.shape != (len(features),):
            raise ClearError(
                f"{path}: {key} has shape {array.shape}, expected ({len(features)},) as {side}_features has "
                f"{len(features)} rows"
            )
        ids[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    names: tuple[str, ...] = ()
    if f"{side}_names" in archive.files:
        array = _read_array(path, archive, f"{side}_names")
        if array.dtype.kind != "U" or array.shape != (len(features),):
            raise ClearError(
                f"{path}: {side}_names is {array.dtype} of shape {array.shape}, expected texts, ({len(features)},)"
            )
        try:
            names = tuple(array.tolist())
            "".join(names).encode("utf-8", "surrogateescape")
        except (SystemError, ValueError) as error:  # NumPy's and Python's words for numbers that are no characters
            raise ClearError(f"{path}: {side}_names holds a text that no file name can be ({error})") from error
    return LabelledFeatures(torch.from_numpy(features), ids["pids"], ids["camids"], ids.get("clothes_ids"), names)
