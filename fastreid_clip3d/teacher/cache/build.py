"""Builds a cache, or what is missing of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastreid_clip3d.common.dataset_root import dataset_root
from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher.cache.compute import compute_shards
from fastreid_clip3d.teacher.cache.files import (
    FORMAT,
    MANIFEST,
    PHRASE_TABLE,
    CacheError,
    ImageState,
    image_key,
    read_manifest,
    read_sidecar,
    row_type,
    same_content,
    shard_fault,
    some,
    write_array,
)
from fastreid_clip3d.teacher.cache.fingerprint import fingerprint_changes
from fastreid_clip3d.teacher.clip import Fingerprint, Teacher


class BuildResult(NamedTuple):
    """What one rank did: shards computed and kept by it, and shards of all ranks still missing."""

    computed: int
    kept: int
    missing: int
    images: int


def build_cache(
    paths: Sequence[str | Path],
    teacher: Teacher,
    folder: str | Path,
    *,
    root: str | Path = "",
    images_per_shard: int = 1024,
    batch: int = 64,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    rebuild: bool = False,
    progress: bool = True,
) -> BuildResult:
    """Computes what is missing of a cache; whole shards that fit are kept, so an interrupted build goes on.

    Args:
        paths: images; repeated ones count once.
        teacher: computes the answers.
        folder: of the cache.
        root: folder the images' names are relative to; "": the deepest folder that holds them all.
        images_per_shard: most that an interruption can lose.
        batch: images per forward pass (each with its mirror image).
        num_workers: processes that read and resize.
        rank, world_size: this process computes every world_size-th shard, from `rank` on.
        rebuild: start anew where the folder holds a cache of another teacher.

    Raises:
        CacheError: the folder belongs to another teacher (the message lists the differences) or cannot be written, or
            the disk is full.
        ClearError: an image is missing or cannot be decoded (named).
    """
    folder = Path(folder)
    absolute = sorted({os.path.abspath(path) for path in paths})
    if not absolute:
        raise ClearError("there are no images to cache; check DATASETS.NAMES.")
    lost = [path for path in absolute if not os.path.isfile(path)]
    if lost:
        raise ClearError(f"{len(lost)} images to be cached do not exist: {some(lost)}. Check the dataset's folder.")
    below_datasets = bool(root) and os.path.abspath(root) == os.path.abspath(dataset_root())
    root = os.path.abspath(root or os.path.commonpath([os.path.dirname(path) for path in absolute]))
    keys = [image_key(path, root) for path in absolute]
    shards = [keys[start : start + images_per_shard] for start in range(0, len(keys), images_per_shard)]
    manifest = {
        "format": FORMAT,
        "fingerprint": teacher.fingerprint.as_dict(),
        "embed_dim": teacher.embed_dim,
        "root": root,
        "below_datasets": below_datasets,
        "images_per_shard": images_per_shard,
        "num_images": len(keys),
        "num_shards": len(shards),
    }
    stored = _prepare_folder(folder, manifest, teacher.fingerprint, rebuild)

    kept: list[int] = []
    todo: list[int] = []
    for shard in range(rank, len(shards), world_size):
        fits = _shard_fits(folder, shard, shards[shard], root, teacher.embed_dim)
        (kept if fits else todo).append(shard)
    # The other ranks fill the same disk at the same time.
    _require_space(folder, world_size * sum(len(shards[shard]) for shard in todo), teacher.embed_dim)
    if stored and not todo:
        # No row is computed here, so the precision and the versions stay. Another rank may have changed them meanwhile.
        manifest["fingerprint"] = read_manifest(folder)["fingerprint"]
    write_atomically(folder / MANIFEST, json.dumps(manifest).encode())
    write_array(folder / PHRASE_TABLE, teacher.phrase_table.cpu().numpy())
    if rank == 0:
        _remove_shards_from(folder, len(shards))
    compute_shards({shard: shards[shard] for shard in todo}, folder, root, teacher, batch, num_workers, progress)
    missing = sum(shard_fault(folder, shard, teacher.embed_dim) is not None for shard in range(len(shards)))
    return BuildResult(len(todo), len(kept), missing, len(keys))


def cache_bytes(num_images: int, embed_dim: int) -> int:
    """Bytes that a cache of so many images takes, file names included generously."""
    return num_images * (row_type(embed_dim).itemsize + 300) + 65536


def _remove_shards_from(folder: Path, first: int) -> None:
    for sidecar in folder.glob("shard-*.json"):
        if int(sidecar.stem.removeprefix("shard-")) >= first:
            sidecar.unlink(missing_ok=True)
            sidecar.with_suffix(".npy").unlink(missing_ok=True)


def _prepare_folder(
    folder: Path, manifest: dict[str, Any], fingerprint: Fingerprint, rebuild: bool
) -> dict[str, Any] | None:
    """Makes the folder; returns the manifest of the cache in it whose rows may be kept, None if there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CacheError(
            f"teacher cache folder {folder} cannot be written ({error.strerror}); give another one."
        ) from error
    if not (folder / MANIFEST).is_file():
        return None
    try:
        stored = read_manifest(folder)
    except CacheError:
        if not rebuild:
            raise
        stored = None
    if stored is not None:
        changes = fingerprint_changes(stored["fingerprint"], fingerprint)
        if not changes:
            moved_along = stored.get("below_datasets") and manifest["below_datasets"]
            other_names = stored["root"] != manifest["root"] and not moved_along
            if stored["images_per_shard"] != manifest["images_per_shard"] or other_names:
                _forget_shards(folder)
            return stored
        if not rebuild:
            raise CacheError(
                f"teacher cache {folder} was made by something else: {'; '.join(changes)}. Give another folder "
                "(MODEL.TEACHER.CACHE_DIR), or --rebuild to replace it."
            )
    _forget_shards(folder)
    return None


def _forget_shards(folder: Path) -> None:
    for path in folder.glob("shard-*.json"):
        path.unlink(missing_ok=True)


def _require_space(folder: Path, num_images: int, embed_dim: int) -> None:
    needed, free = cache_bytes(num_images, embed_dim) if num_images else 0, shutil.disk_usage(folder).free
    if needed > free:
        raise CacheError(
            f"the disk of {folder} has {free / 2**20:.0f} MiB free and the cache needs {needed / 2**20:.0f} MiB more; "
            "make room or give another folder (MODEL.TEACHER.CACHE_DIR)."
        )


def _shard_fits(folder: Path, shard: int, keys: list[str], root: str, embed_dim: int) -> bool:
    """Whether a shard is whole and is about exactly these images with today's content."""
    if shard_fault(folder, shard, embed_dim):
        return False
    images = read_sidecar(folder, shard)["images"]
    return list(images) == keys and all(
        same_content(os.path.join(root, key), ImageState(*images[key]), content=False) for key in keys
    )
