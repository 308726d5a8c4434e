"""The files of a cache.

``manifest.json`` says what made the cache and how images are dealt to shards. Each shard is one memory-mapped array
file and a small json beside it that names its images, their content and the array's own hash. The json is written last,
so a shard is either whole or is not counted. ``phrase_table.npy`` is the teacher's phrase table.

Choices are stored as bits, made from full-precision scores: float16 could turn a narrow decision.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fastreid_clip3d.body.archives import DAMAGES
from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import NUM_PAIRS

FORMAT = 1
MANIFEST, PHRASE_TABLE = "manifest.json", "phrase_table.npy"
RECOMPUTE = "run `clip3d cache-teacher` again: it recomputes what is missing or changed and keeps the rest"
_MANIFEST_KEYS: dict[str, type] = {
    "fingerprint": dict, "embed_dim": int, "root": str, "num_shards": int, "images_per_shard": int
}  # fmt: skip
_FINGERPRINT_KEYS: dict[str, type] = {
    "weights": str, "teacher": str, "preprocessing": dict, "prompts": list, "versions": dict
}  # fmt: skip
_DAMAGES: tuple[type[Exception], ...] = (AttributeError, *DAMAGES)


class CacheError(ClearError):
    """A cache that is missing, incomplete, damaged or made from something else."""


class ImageState(NamedTuple):
    """How a file is recognised: bytes, time of change (nanoseconds) and SHA-256 of its content."""

    size: int
    mtime_ns: int
    sha256: str


def row_type(embed_dim: int) -> np.dtype:
    """One image of a shard: both sides' g and scores in float16 and the choices' bits."""
    return np.dtype(
        [("features", "<f2", (2, embed_dim)), ("scores", "<f2", (2, 2 * NUM_PAIRS)), ("choices", "<u2", (2,))]
    )


def image_key(path: str | Path, root: str) -> str:
    """An image's name in the cache: its path relative to `root`, with forward slashes."""
    return os.path.relpath(os.path.abspath(path), root).replace(os.sep, "/")


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}"


def array_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard_name(shard)}.npy"


def sidecar_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard_name(shard)}.json"


def write_shard(folder: Path, shard: int, rows: np.ndarray, images: dict[str, ImageState]) -> None:
    sidecar_path(folder, shard).unlink(missing_ok=True)
    write_array(array_path(folder, shard), rows)
    sidecar = {"array_sha256": hash_file(array_path(folder, shard)), "images": images}
    write_atomically(sidecar_path(folder, shard), json.dumps(sidecar).encode())


def same_content(path: str, state: ImageState, content: bool) -> bool:
    status = os.stat(path)
    if not content and (status.st_size, status.st_mtime_ns) == (state.size, state.mtime_ns):
        return True
    return status.st_size == state.size and hash_file(path) == state.sha256


def shard_fault(folder: Path, shard: int, embed_dim: int) -> str | None:
    """Why a shard cannot be used, None if it can."""
    array = array_path(folder, shard)
    if not sidecar_path(folder, shard).is_file() or not array.is_file():
        return "is missing"
    try:
        sidecar = read_sidecar(folder, shard)
        if hash_file(array) != sidecar["array_sha256"]:
            return "is damaged (its content is not what was written)"
        rows = np.load(array, mmap_mode="r", allow_pickle=False)
        states = {key: ImageState(*state) for key, state in sidecar["images"].items()}
        if rows.dtype != row_type(embed_dim) or len(rows) != len(states):
            return "is of another layout"
    except _DAMAGES:
        return "is damaged (unreadable)"
    return None


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise CacheError(
            f"there is no teacher cache in {folder}. Make one with `clip3d cache-teacher --config-file ...`, or let "
            "the teacher run during training with MODEL.TEACHER.MODE online."
        )
    try:
        manifest = json.loads(path.read_text())
        if manifest["format"] != FORMAT:
            raise CacheError(
                f"teacher cache {folder} is of format {manifest['format']}, this package reads {FORMAT}; make it anew "
                "with `clip3d cache-teacher --rebuild`."
            )
        _require_types(manifest, _MANIFEST_KEYS)
        _require_types(manifest["fingerprint"], _FINGERPRINT_KEYS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path} cannot be read as a cache's manifest; delete {folder} or use --rebuild.") from error
    return manifest


def _require_types(values: dict[str, Any], types: dict[str, type]) -> None:
    for key, wanted in types.items():
        if not isinstance(values[key], wanted):
            raise TypeError(key)


def read_sidecar(folder: Path, shard: int) -> dict[str, Any]:
    return json.loads(sidecar_path(folder, shard).read_text())


def _load_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except DAMAGES as error:
        raise CacheError(f"{path} is missing or damaged; {RECOMPUTE}.") from error


def read_phrase_table(path: Path, embed_dim: int) -> torch.Tensor:
    table = _load_array(path)
    if table.dtype.kind != "f" or table.shape != (2 * NUM_PAIRS, embed_dim) or not np.isfinite(table).all():
        raise CacheError(f"{path} is no phrase table of {2 * NUM_PAIRS} x {embed_dim} finite numbers; {RECOMPUTE}.")
    return torch.from_numpy(table.astype(np.float32))


def hash_file(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_array(path: Path, array: np.ndarray) -> None:
    write_atomically(path, lambda file: np.save(file, array, allow_pickle=False))


def some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
