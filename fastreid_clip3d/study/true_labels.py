"""A teacher cache whose labels are the true descriptors: what the method could give if the teacher never erred.

g stays the teacher's. The new cache keeps the old one's fingerprint, so it fits the same teacher and the same images
and passes the same checks; its manifest says where the labels come from.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Mapping

import numpy as np

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import write_atomically
from fastreid_clip3d.teacher.cache import MANIFEST, PHRASE_TABLE, TeacherCache, array_path, sidecar_path
from fastreid_clip3d.teacher.labels import pack_choices
from fastreid_clip3d.vocabulary import NUM_PAIRS

NOTE = "labels"
"""Key of the manifest that says whose labels these are; absent in a teacher's own cache."""


def true_choices(dataset: str | Path, splits: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """phrase_choices, int64 [16], of the images of a SynthCC folder by file name (``train/0000_o1_c3_00.jpg``).

    Args:
        dataset: the folder with ``index.npz``. splits: only these, e.g. ("train",); (): all.

    Raises:
        ClearError: no such file, or it is no index of SynthCC.
    """
    path = Path(dataset) / "index.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            files, split, choices = (arrays[name] for name in ("files", "split", "phrase_choices"))
    except (OSError, ValueError, KeyError) as error:
        raise ClearError(
            f"{path} cannot be read as an index of SynthCC ({error}); render the set with tools/render_people.py."
        ) from error
    if choices.shape != (len(files), NUM_PAIRS) or not np.isin(choices, (0, 1)).all():
        raise ClearError(f"{path}: phrase_choices is not [{len(files)}, {NUM_PAIRS}] of 0 and 1.")
    wanted = np.isin(split, splits) if splits else np.ones(len(files), dtype=bool)
    return {str(file): row for file, row in zip(files[wanted], choices[wanted].astype(np.int64))}


def write_true_labels(source: str | Path, target: str | Path, dataset: str | Path) -> Path:
    """Copies a finished cache with the true labels in place of the teacher's; returns `target`.

    The 32 scores become 1 for the true phrase of each pair and 0 for the other. A target that is up to date is left
    alone.

    Args:
        source: folder of a teacher's cache (``teacher_cache/embedded_squash``).
        target: folder to write, below another ``MODEL.TEACHER.CACHE_DIR`` under the same name.
        dataset: folder of the SynthCC set whose images the cache is about.

    Raises:
        ClearError: no usable cache, a target that is a teacher's own cache, or images that the set does not describe.
    """
    source, target, dataset = Path(source), Path(target), Path(dataset)
    cache = TeacherCache(source)
    manifest = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    if (target / MANIFEST).is_file() and NOTE not in json.loads((target / MANIFEST).read_text(encoding="utf-8")):
        raise ClearError(f"{target} holds a teacher's own cache; choose another folder for the true labels.")
    truth = true_choices(dataset)
    below = Path(cache.root)
    sidecars = [sidecar_path(source, shard) for shard in range(manifest["num_shards"])]
    shards = [json.loads(path.read_text(encoding="utf-8")) for path in sidecars]
    stamp = hashlib.sha256(
        json.dumps([[sidecar["array_sha256"], sidecar["images"]] for sidecar in shards]).encode()
        + b"".join(choices.tobytes() for choices in truth.values())
    ).hexdigest()
    note = {NOTE: f"true descriptors of {dataset.name}, not the teacher's", "made_from": stamp}
    if _is_up_to_date(target, stamp):
        return target
    for shard, sidecar in enumerate(shards):
        rows = np.load(array_path(source, shard), allow_pickle=False)
        choices = np.stack([_choices_of(below / key, dataset, truth) for key in sidecar["images"]])
        rows["choices"] = pack_choices(choices)[:, None]  # a mirror image shows the same body
        rows["scores"] = np.stack((choices == 0, choices == 1), -1).reshape(len(rows), 1, 2 * NUM_PAIRS)
        buffer = io.BytesIO()
        np.save(buffer, rows, allow_pickle=False)
        data = buffer.getvalue()
        write_atomically(array_path(target, shard), lambda stream: stream.write(data))
        changed = {**sidecar, "array_sha256": hashlib.sha256(data).hexdigest(), NOTE: note[NOTE]}
        _write_json(sidecar_path(target, shard), changed)
    table = (source / PHRASE_TABLE).read_bytes()
    write_atomically(target / PHRASE_TABLE, lambda stream: stream.write(table))
    _write_json(target / MANIFEST, {**manifest, **note})
    return target


def _choices_of(image: Path, dataset: Path, truth: Mapping[str, np.ndarray]) -> np.ndarray:
    try:
        return truth[image.resolve().relative_to(dataset.resolve()).as_posix()]
    except (KeyError, ValueError):
        raise ClearError(
            f"{image} is in the teacher's cache, but {dataset / 'index.npz'} does not describe it; true labels are "
            "known of SynthCC only. Make a cache of its training images alone with tools/cache_teacher.py."
        ) from None


def _is_up_to_date(target: Path, stamp: str) -> bool:
    try:
        made_from = json.loads((target / MANIFEST).read_text(encoding="utf-8")).get("made_from")
        TeacherCache(target)
    except (OSError, ValueError, ClearError):
        return False
    return made_from == stamp


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value)
    write_atomically(path, lambda stream: stream.write(text.encode()))
