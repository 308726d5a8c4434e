"""A teacher cache that tells the truth: what the method could give if the teacher never erred.

The labels become the true descriptors; g stays the teacher's, or becomes the true body too. The new cache keeps the old
one's fingerprint, so it fits the same teacher and the same images and passes the same checks; its manifest says where
the answers come from.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.synthcc.index import read_columns, true_choices
from fastreid_clip3d.teacher.cache import MANIFEST, PHRASE_TABLE, TeacherCache, array_path, sidecar_path
from fastreid_clip3d.teacher.labels import pack_choices
from fastreid_clip3d.vocabulary import NUM_PAIRS

NOTE = "labels"
"""Key of the manifest that says whose answers these are; absent in a teacher's own cache."""
LABELS, EMBEDDINGS = "labels", "embeddings"
"""What can be true: the 16 labels, and g."""
FARTHEST = 3.0
"""Standard deviations to which a body's numbers are cut off in a true g, so that no image outweighs a batch."""


def true_embeddings(dataset: str | Path, dims: int) -> dict[str, np.ndarray]:
    """A g that knows the body and nothing else, float64 [dims], of the images of a SynthCC folder by file name.

    The 16 descriptor scores and the 10 betas, each in standard deviations over the training images, turned into `dims`
    directions by a fixed orthonormal matrix; the mean square over the training images and directions is 1.

    Args:
        dataset: the folder with ``index.npz``. dims: d, at least 26.

    Raises:
        ClearError: no such file, it is no index of SynthCC, or too few dims.
    """
    files, split, scores, betas = read_columns(dataset, "files", "split", "scores", "betas")
    numbers = np.concatenate((scores, betas), axis=1).astype(np.float64)
    if dims < numbers.shape[1]:
        raise ClearError(f"a true g needs at least {numbers.shape[1]} numbers; this teacher's g has {dims}.")
    train = split == "train"
    numbers = (numbers - numbers[train].mean(0)) / np.maximum(numbers[train].std(0), 1e-9)
    numbers = numbers.clip(-FARTHEST, FARTHEST)
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((dims, dims)))[0]
    embeddings = numbers @ directions[: numbers.shape[1]]
    embeddings /= np.sqrt(np.square(embeddings[train]).mean())
    return {str(file): row for file, row in zip(files, embeddings)}


def write_true_answers(
    source: str | Path, target: str | Path, dataset: str | Path, truth: Sequence[str] = (LABELS,)
) -> Path:
    """Copies a finished cache with the truth in place of the teacher's answers; returns `target`.

    Labels: the 32 scores become 1 for the true phrase of each pair and 0 for the other. Embeddings: g becomes
    :func:`true_embeddings` at the teacher's own root mean square. A target that is up to date is left alone.

    Args:
        source: folder of a teacher's cache (``teacher_cache/embedded_squash``).
        target: folder to write, below another ``MODEL.TEACHER.CACHE_DIR`` under the same name.
        dataset: folder of the SynthCC set whose images the cache is about.
        truth: ("labels",) or ("labels", "embeddings").

    Raises:
        ClearError: no usable cache, a target that is a teacher's own cache, or images that the set does not describe.
    """
    source, target, dataset = Path(source), Path(target), Path(dataset)
    cache = TeacherCache(source)
    manifest = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    if (target / MANIFEST).is_file() and NOTE not in json.loads((target / MANIFEST).read_text(encoding="utf-8")):
        raise ClearError(f"{target} holds a teacher's own cache; choose another folder for the true answers.")
    labels = true_choices(dataset)
    below = Path(cache.root)
    numbers = range(manifest["num_shards"])
    shards = [json.loads(sidecar_path(source, shard).read_text(encoding="utf-8")) for shard in numbers]
    arrays = [np.load(array_path(source, shard), allow_pickle=False) for shard in numbers]
    embeddings = {}
    if EMBEDDINGS in truth:
        size = np.sqrt(np.mean([np.square(rows["features"].astype(np.float64)).mean() for rows in arrays]))
        dims = arrays[0]["features"].shape[-1]
        embeddings = {file: row * size for file, row in true_embeddings(dataset, dims).items()}
    stamp = hashlib.sha256(
        json.dumps([[sidecar["array_sha256"], sidecar["images"]] for sidecar in shards]).encode()
        + b"".join(row.tobytes() for row in (*labels.values(), *embeddings.values()))
    ).hexdigest()
    whose = "true descriptors" if not embeddings else "true descriptors and bodies"
    note = {NOTE: f"{whose} of {dataset.name}, not the teacher's", "made_from": stamp}
    if _is_up_to_date(target, stamp):
        return target
    for shard, sidecar, rows in zip(numbers, shards, arrays):
        files = [_described(below / key, dataset, labels) for key in sidecar["images"]]
        choices = np.stack([labels[file] for file in files])
        rows["choices"] = pack_choices(choices)[:, None]  # a mirror image shows the same body
        rows["scores"] = np.stack((choices == 0, choices == 1), -1).reshape(len(rows), 1, 2 * NUM_PAIRS)
        if embeddings:
            rows["features"] = np.stack([embeddings[file] for file in files])[:, None]
        buffer = io.BytesIO()
        np.save(buffer, rows, allow_pickle=False)
        data = buffer.getvalue()
        write_atomically(array_path(target, shard), data)
        changed = {**sidecar, "array_sha256": hashlib.sha256(data).hexdigest(), NOTE: note[NOTE]}
        _write_json(sidecar_path(target, shard), changed)
    table = (source / PHRASE_TABLE).read_bytes()
    write_atomically(target / PHRASE_TABLE, table)
    _write_json(target / MANIFEST, {**manifest, **note})
    return target


def _described(image: Path, dataset: Path, labels: Mapping[str, np.ndarray]) -> str:
    """An image's name in the set."""
    with contextlib.suppress(ValueError):
        file = image.resolve().relative_to(dataset.resolve()).as_posix()
        if file in labels:
            return file
    raise ClearError(
        f"{image} is in the teacher's cache, but {dataset / 'index.npz'} does not describe it; the truth is known of "
        "SynthCC only. Make a cache of its training images alone with `clip3d cache-teacher`."
    )


def _is_up_to_date(target: Path, stamp: str) -> bool:
    try:
        made_from = json.loads((target / MANIFEST).read_text(encoding="utf-8")).get("made_from")
        TeacherCache(target)
    except (OSError, ValueError, ClearError):
        return False
    return made_from == stamp


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value)
    write_atomically(path, text.encode())
