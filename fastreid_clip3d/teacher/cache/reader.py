"""Reads a finished cache by image path, and says what changed since it was built."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastreid_clip3d.common.dataset_root import dataset_root
from fastreid_clip3d.teacher.cache.files import (
    PHRASE_TABLE,
    RECOMPUTE,
    CacheError,
    ImageState,
    array_path,
    image_key,
    read_manifest,
    read_phrase_table,
    read_sidecar,
    same_content,
    shard_fault,
    shard_name,
    some,
)
from fastreid_clip3d.teacher.cache.fingerprint import fingerprint_changes
from fastreid_clip3d.teacher.clip import Fingerprint
from fastreid_clip3d.teacher.labels import unpack_choices

REBUILD = "run `clip3d cache-teacher --rebuild`, which replaces the cache"
RESTORE = "restore the images, or, if the dataset no longer lists them, run `clip3d cache-teacher` again for the others"


class TeacherCache:
    """A finished cache, to be read by path. Can be pickled, so each dataset worker can have a copy.

    Args:
        folder: what :func:`build_cache` wrote.
        root: folder below which the images lie now; "" where they lay when the cache was built.

    Attributes:
        phrase_table: raw text embeddings, float32 [32, d].
        fingerprint: what made the cache, as `Fingerprint.as_dict` gives it.

    Raises:
        CacheError: no cache there, or shards missing or damaged (all of them are named).
    """

    def __init__(self, folder: str | Path, root: str | Path = "") -> None:
        self.folder = Path(folder)
        self._manifest = read_manifest(self.folder)
        self.fingerprint: dict[str, Any] = self._manifest["fingerprint"]
        self.embed_dim: int = self._manifest["embed_dim"]
        self.phrase_table = read_phrase_table(self.folder / PHRASE_TABLE, self.embed_dim)
        self._places: dict[str, tuple[int, int]] = {}
        self._states: dict[str, ImageState] = {}
        faults = {}
        for shard in range(self._manifest["num_shards"]):
            fault = shard_fault(self.folder, shard, self.embed_dim)
            if fault:
                faults[shard] = fault
                continue
            for row, (key, state) in enumerate(read_sidecar(self.folder, shard)["images"].items()):
                self._places[key] = (shard, row)
                self._states[key] = ImageState(*state)
        if faults:
            shown = "; ".join(f"{shard_name(shard)} {fault}" for shard, fault in list(faults.items())[:5])
            raise CacheError(
                f"teacher cache {self.folder}: {len(faults)} of {self._manifest['num_shards']} shards are unusable "
                f"({shown}{'; ...' if len(faults) > 5 else ''}); {RECOMPUTE}."
            )
        self._arrays: dict[int, np.ndarray] = {}
        self.root = os.path.abspath(root or self._root())

    def _root(self) -> str:
        """The datasets' folder of today if the cache was made below that folder and any of its images is there."""
        datasets = dataset_root()
        there = (os.path.isfile(os.path.join(datasets, key)) for key in self._places)
        return datasets if self._manifest.get("below_datasets") and any(there) else self._manifest["root"]

    def __len__(self) -> int:
        """Number of images, mirror images not counted."""
        return len(self._places)

    def __contains__(self, path: str | Path) -> bool:
        return image_key(path, self.root) in self._places

    def lookup(self, path: str | Path, flipped: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """g, float32 [d], and phrase_choices, int64 [16], of an image or its mirror image.

        Raises:
            CacheError: the image is not in the cache.
        """
        row = self._row(path)
        features = torch.from_numpy(row["features"][int(flipped)].astype(np.float32))
        return features, torch.from_numpy(unpack_choices(row["choices"][int(flipped)]))

    def scores(self, path: str | Path, flipped: bool = False) -> torch.Tensor:
        """The 32 cosine similarities, float32 [32], to float16's precision."""
        return torch.from_numpy(self._row(path)["scores"][int(flipped)].astype(np.float32))

    def missing(self, paths: Iterable[str | Path]) -> list[str]:
        """Those of `paths` that the cache does not hold."""
        return [str(path) for path in paths if path not in self]

    def verify(
        self,
        fingerprint: Fingerprint | None = None,
        paths: Iterable[str | Path] | None = None,
        content: bool = False,
    ) -> list[str]:
        """Everything that changed since the cache was built, one sentence each; empty if it can be used.

        Args:
            fingerprint: of the teacher that is asked for (``teacher.fingerprint``); None: not compared.
            paths: images that training needs; None: those in the cache.
            content: hash every image; otherwise only images whose size or time of change differ are hashed.

        Other package versions are only logged: answers then differ by rounding at most.
        """
        return [change for change, _ in self._changes(fingerprint, paths, content)]

    def _changes(
        self, fingerprint: Fingerprint | None, paths: Iterable[str | Path] | None, content: bool
    ) -> list[tuple[str, str]]:
        """(what changed, what to do), see :meth:`verify`."""
        teacher = fingerprint_changes(self.fingerprint, fingerprint) if fingerprint else []
        changes = [(change, REBUILD) for change in teacher]
        keys = list(self._places) if paths is None else [image_key(path, self.root) for path in paths]
        absent = [key for key in keys if key not in self._places]
        if absent:
            changes.append((f"{len(absent)} images are not in the cache: {some(absent)}", RECOMPUTE))
        changed, gone = [], []
        for key in dict.fromkeys(keys):
            if key not in self._places:
                continue
            path = os.path.join(self.root, key)
            if not os.path.isfile(path):
                gone.append(key)
            elif not same_content(path, self._states[key], content):
                changed.append(key)
        if gone:
            lost = f"{len(gone)} images that the cache knows no longer exist below {self.root}: {some(gone)}"
            changes.append((lost, RESTORE))
        if changed:
            changes.append((f"{len(changed)} images changed since: {some(changed)}", RECOMPUTE))
        return changes

    def require(
        self,
        fingerprint: Fingerprint | None = None,
        paths: Iterable[str | Path] | None = None,
        content: bool = False,
    ) -> None:
        """:meth:`verify`, raising CacheError with all that changed."""
        changes = self._changes(fingerprint, paths, content)
        if changes:
            what, remedies = "; ".join(change for change, _ in changes), dict.fromkeys(remedy for _, remedy in changes)
            raise CacheError(
                f"teacher cache {self.folder} does not fit: {what}. To mend it, {'; and '.join(remedies)}."
            )

    def _row(self, path: str | Path) -> np.void:
        key = image_key(path, self.root)
        if key not in self._places:
            raise CacheError(f"teacher cache {self.folder} has no answer for {path}; {RECOMPUTE}.")
        shard, row = self._places[key]
        if shard not in self._arrays:
            self._arrays[shard] = np.load(array_path(self.folder, shard), mmap_mode="r", allow_pickle=False)
        return self._arrays[shard][row]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}  # a worker opens its own maps instead of receiving copies
