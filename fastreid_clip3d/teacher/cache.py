"""The teacher's answers on disk: g, the 32 scores and the 16 choices of every training image and of its mirror image.

A cache is a folder. ``manifest.json`` says what made it and how images are dealt to shards; each shard is one
memory-mapped array file and a small json beside it that names its images, their content and the array's own hash. The
json is written last, so a shard is either whole or is not counted. ``phrase_table.npy`` is the teacher's phrase table.

Choices are stored as bits, made from full-precision scores: float16 could turn a narrow decision.

Shape letters: N images, 2 sides (as it is, mirrored), d embedding width, 32 phrases, 16 pairs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import ImageOps
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from fastreid_clip3d.body.archives import DAMAGES
from fastreid_clip3d.common.dataset_root import dataset_root
from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.common.images import decode_image
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher.clip import Fingerprint, Teacher
from fastreid_clip3d.teacher.labels import pack_choices, unpack_choices
from fastreid_clip3d.teacher.preprocess import ImageTransform
from fastreid_clip3d.vocabulary import NUM_PAIRS

FORMAT = 1
MANIFEST, PHRASE_TABLE = "manifest.json", "phrase_table.npy"
RECOMPUTE = "run `clip3d cache-teacher` again: it recomputes what is missing or changed and keeps the rest"
REBUILD = "run `clip3d cache-teacher --rebuild`, which replaces the cache"
RESTORE = "restore the images, or, if the dataset no longer lists them, run `clip3d cache-teacher` again for the others"
_MANIFEST_KEYS: dict[str, type] = {
    "fingerprint": dict, "embed_dim": int, "root": str, "num_shards": int, "images_per_shard": int
}  # fmt: skip
_FINGERPRINT_KEYS: dict[str, type] = {
    "weights": str, "teacher": str, "preprocessing": dict, "prompts": list, "versions": dict
}  # fmt: skip
_DAMAGES: tuple[type[Exception], ...] = (AttributeError, *DAMAGES)
logger = logging.getLogger(__name__)


class CacheError(ClearError):
    """A cache that is missing, incomplete, damaged or made from something else."""


class ImageState(NamedTuple):
    """How a file is recognised: bytes, time of change (nanoseconds) and SHA-256 of its content."""

    size: int
    mtime_ns: int
    sha256: str


class BuildResult(NamedTuple):
    """What one rank did: shards computed and kept by it, and shards of all ranks still missing."""

    computed: int
    kept: int
    missing: int
    images: int


def row_type(embed_dim: int) -> np.dtype:
    """One image of a shard: both sides' g and scores in float16 and the choices' bits."""
    return np.dtype(
        [("features", "<f2", (2, embed_dim)), ("scores", "<f2", (2, 2 * NUM_PAIRS)), ("choices", "<u2", (2,))]
    )


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
        self._manifest = _read_manifest(self.folder)
        self.fingerprint: dict[str, Any] = self._manifest["fingerprint"]
        self.embed_dim: int = self._manifest["embed_dim"]
        self.phrase_table = _read_phrase_table(self.folder / PHRASE_TABLE, self.embed_dim)
        self._places: dict[str, tuple[int, int]] = {}
        self._states: dict[str, ImageState] = {}
        faults = {}
        for shard in range(self._manifest["num_shards"]):
            fault = _shard_fault(self.folder, shard, self.embed_dim)
            if fault:
                faults[shard] = fault
                continue
            for row, (key, state) in enumerate(_read_sidecar(self.folder, shard)["images"].items()):
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
            changes.append((f"{len(absent)} images are not in the cache: {_some(absent)}", RECOMPUTE))
        changed, gone = [], []
        for key in dict.fromkeys(keys):
            if key not in self._places:
                continue
            path = os.path.join(self.root, key)
            if not os.path.isfile(path):
                gone.append(key)
            elif not _same_content(path, self._states[key], content):
                changed.append(key)
        if gone:
            lost = f"{len(gone)} images that the cache knows no longer exist below {self.root}: {_some(gone)}"
            changes.append((lost, RESTORE))
        if changed:
            changes.append((f"{len(changed)} images changed since: {_some(changed)}", RECOMPUTE))
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
        raise ClearError(f"{len(lost)} images to be cached do not exist: {_some(lost)}. Check the dataset's folder.")
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
        manifest["fingerprint"] = _read_manifest(folder)["fingerprint"]
    write_atomically(folder / MANIFEST, json.dumps(manifest).encode())
    _write_array(folder / PHRASE_TABLE, teacher.phrase_table.cpu().numpy())
    if rank == 0:
        _remove_shards_from(folder, len(shards))
    _compute({shard: shards[shard] for shard in todo}, folder, root, teacher, batch, num_workers, progress)
    missing = sum(_shard_fault(folder, shard, teacher.embed_dim) is not None for shard in range(len(shards)))
    return BuildResult(len(todo), len(kept), missing, len(keys))


def cache_bytes(num_images: int, embed_dim: int) -> int:
    """Bytes that a cache of so many images takes, file names included generously."""
    return num_images * (row_type(embed_dim).itemsize + 300) + 65536


def fingerprint_changes(stored: dict[str, Any], wanted: Fingerprint) -> list[str]:
    """What differs between a stored fingerprint and the teacher at hand, in words."""
    current = json.loads(json.dumps(wanted.as_dict()))
    changes = []
    if stored["weights"] != current["weights"]:
        changes.append(f"other teacher weights (cache: {stored['teacher']}, now: {current['teacher']})")
    for key in sorted({*stored["preprocessing"], *current["preprocessing"]}):
        old, new = stored["preprocessing"].get(key), current["preprocessing"].get(key)
        if old != new:
            changes.append(f"other preprocessing: {key} was {old}, is {new}")
    if stored["prompts"] != current["prompts"]:
        pairs = [(old, new) for old, new in zip(stored["prompts"], current["prompts"]) if old != new]
        example = f"{pairs[0][0]!r} is now {pairs[0][1]!r}" if pairs else "another number of them"
        changes.append(f"{max(len(pairs), 1)} prompts changed: {example}")
    made_in = stored.get("precision", current["precision"])
    if made_in != current["precision"]:
        if current["precision"] == "fp32":
            changes.append(f"other precision: the teacher computed in {made_in}, asked for is fp32")
        else:
            logger.warning(f"the teacher cache was computed in {made_in}, asked for is {current['precision']}")
    if stored["versions"] != current["versions"]:
        logger.warning(f"the teacher cache was made with {stored['versions']}, here is {current['versions']}")
    return changes


def image_key(path: str | Path, root: str) -> str:
    """An image's name in the cache: its path relative to `root`, with forward slashes."""
    return os.path.relpath(os.path.abspath(path), root).replace(os.sep, "/")


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}"


def array_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard_name(shard)}.npy"


def sidecar_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard_name(shard)}.json"


class _BothSides(Dataset):
    """Images as the teacher sees them, uint8 [2, 3, H, W]: as they are, and mirrored before resizing as in training."""

    def __init__(self, paths: Sequence[str], transform: ImageTransform) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ImageState | str]:
        path = self.paths[index]
        try:
            status = os.stat(path)
            data = Path(path).read_bytes()
            image = decode_image(data, path)
        except OSError as error:
            return torch.empty(0), f"image {path} cannot be read ({error.strerror})."
        except ClearError as error:  # returned, since a worker process would wrap what it raises in its own traceback
            return torch.empty(0), str(error)
        try:
            sides = torch.stack((self.transform(image), self.transform(ImageOps.mirror(image))))
        except ClearError as error:
            return torch.empty(0), f"{path}: {error}"
        return sides, ImageState(status.st_size, status.st_mtime_ns, hashlib.sha256(data).hexdigest())


def _stack(items: list[tuple[torch.Tensor, ImageState | str]]) -> tuple[torch.Tensor, list[ImageState] | str]:
    """All items of a batch, or the first message about one that cannot be read."""
    states: list[ImageState] = []
    for _, state in items:
        if isinstance(state, str):
            return torch.empty(0), state
        states.append(state)
    return torch.stack([sides for sides, _ in items]), states


def _compute(
    shards: dict[int, list[str]],
    folder: Path,
    root: str,
    teacher: Teacher,
    batch: int,
    num_workers: int,
    progress: bool,
) -> None:
    """Computes and writes shard after shard; one loader reads ahead over all of them."""
    paths = [os.path.join(root, key) for keys in shards.values() for key in keys]
    batches, first = [], 0
    for keys in shards.values():
        places = list(range(first, first + len(keys)))
        batches += [places[start : start + batch] for start in range(0, len(places), batch)]
        first += len(keys)
    loader = iter(
        DataLoader(
            _BothSides(paths, teacher.image_transform),
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=_stack,
            pin_memory=teacher.device.type == "cuda",
        )
    )
    with tqdm(total=len(paths), desc="teacher cache", unit="image", disable=not progress) as bar:
        for shard, keys in shards.items():
            rows = np.zeros(len(keys), dtype=row_type(teacher.embed_dim))
            states: list[ImageState] = []
            while len(states) < len(keys):
                sides, found = next(loader)
                if isinstance(found, str):
                    raise ClearError(found)
                place = slice(len(states), len(states) + len(sides))
                _answer(rows[place], sides, teacher, keys[place])
                states.extend(found)
                bar.update(len(sides))
            _write_shard(folder, shard, rows, dict(zip(keys, states)))


def _answer(rows: np.ndarray, sides: torch.Tensor, teacher: Teacher, keys: list[str]) -> None:
    """Fills `rows` with the teacher's answers for images [B, 2, 3, H, W]."""
    answers = teacher.label_images(sides.flatten(0, 1))
    features, scores, choices = (part.unflatten(0, (-1, 2)).cpu().numpy() for part in answers)
    if not np.isfinite(features).all() or np.abs(features).max() > np.finfo(np.float16).max:
        raise ClearError(f"the teacher's answers for {_some(keys)} are not finite; check its weights.")
    rows["features"], rows["scores"], rows["choices"] = features, scores, pack_choices(choices)


def _write_shard(folder: Path, shard: int, rows: np.ndarray, images: dict[str, ImageState]) -> None:
    sidecar_path(folder, shard).unlink(missing_ok=True)
    _write_array(array_path(folder, shard), rows)
    sidecar = {"array_sha256": _hash_file(array_path(folder, shard)), "images": images}
    write_atomically(sidecar_path(folder, shard), json.dumps(sidecar).encode())


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
        stored = _read_manifest(folder)
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
    if _shard_fault(folder, shard, embed_dim):
        return False
    images = _read_sidecar(folder, shard)["images"]
    return list(images) == keys and all(
        _same_content(os.path.join(root, key), ImageState(*images[key]), content=False) for key in keys
    )


def _same_content(path: str, state: ImageState, content: bool) -> bool:
    status = os.stat(path)
    if not content and (status.st_size, status.st_mtime_ns) == (state.size, state.mtime_ns):
        return True
    return status.st_size == state.size and _hash_file(path) == state.sha256


def _shard_fault(folder: Path, shard: int, embed_dim: int) -> str | None:
    """Why a shard cannot be used, None if it can."""
    array = array_path(folder, shard)
    if not sidecar_path(folder, shard).is_file() or not array.is_file():
        return "is missing"
    try:
        sidecar = _read_sidecar(folder, shard)
        if _hash_file(array) != sidecar["array_sha256"]:
            return "is damaged (its content is not what was written)"
        rows = np.load(array, mmap_mode="r", allow_pickle=False)
        states = {key: ImageState(*state) for key, state in sidecar["images"].items()}
        if rows.dtype != row_type(embed_dim) or len(rows) != len(states):
            return "is of another layout"
    except _DAMAGES:
        return "is damaged (unreadable)"
    return None


def _read_manifest(folder: Path) -> dict[str, Any]:
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


def _read_sidecar(folder: Path, shard: int) -> dict[str, Any]:
    return json.loads(sidecar_path(folder, shard).read_text())


def _load_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except DAMAGES as error:
        raise CacheError(f"{path} is missing or damaged; {RECOMPUTE}.") from error


def _read_phrase_table(path: Path, embed_dim: int) -> torch.Tensor:
    table = _load_array(path)
    if table.dtype.kind != "f" or table.shape != (2 * NUM_PAIRS, embed_dim) or not np.isfinite(table).all():
        raise CacheError(f"{path} is no phrase table of {2 * NUM_PAIRS} x {embed_dim} finite numbers; {RECOMPUTE}.")
    return torch.from_numpy(table.astype(np.float32))


def _hash_file(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write_array(path: Path, array: np.ndarray) -> None:
    write_atomically(path, lambda file: np.save(file, array, allow_pickle=False))


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
