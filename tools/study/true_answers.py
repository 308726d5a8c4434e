"""Writes a teacher cache with true answers: it shows what the method could reach if the teacher never erred.

The true descriptors replace the labels. g stays the teacher's, or is computed from the true body as well. The new cache
keeps the fingerprint of the old one, so that it fits the same teacher and images; its manifest names the source of the
answers.
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
from fastreid_clip3d.teacher.cache import TeacherCache
from fastreid_clip3d.teacher.cache.files import MANIFEST, PHRASE_TABLE, array_path, sidecar_path
from fastreid_clip3d.teacher.labels import pack_choices
from fastreid_clip3d.vocabulary import NUM_PAIRS

NOTE = "labels"
"""Key of the manifest that names the source of the answers; a teacher's own cache does not have it."""
LABELS, EMBEDDINGS = "labels", "embeddings"
"""What can be replaced by the truth: the 16 labels, and g."""
FARTHEST = 3.0
"""Limit of a body's numbers in a true g, in standard deviations, so that no image dominates a batch."""


def true_embeddings(dataset: str | Path, dims: int) -> dict[str, np.ndarray]:
    """By file name, a g that depends on the body alone: float64 [dims] for each image of a SynthCC folder.

    A fixed orthonormal matrix maps the 16 descriptor scores and 10 betas, standardised over the training images, to
    `dims` numbers. Their mean square over the training images is 1.

    Args:
        dataset: the folder with ``index.npz``.
        dims: d, at least 26.

    Raises:
        ClearError: the file is missing or no index of SynthCC, or `dims` is too small.
    """
    files, split, scores, betas = read_columns(dataset, "files", "split", "scores", "betas")
    numbers = np.concatenate((scores, betas), axis=1).astype(np.float64)
    if dims < numbers.shape[1]:
        raise ClearError(
            f"A true g needs at least {numbers.shape[1]} numbers; this teacher's g has {dims}. Use another teacher."
        )
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
    """Copies a finished cache and replaces the teacher's answers by true ones; returns `target`.

    Labels: the score of the true phrase of each pair is 1, that of the other 0. Embeddings: g is
    :func:`true_embeddings`, scaled to the teacher's root mean square. A target that is up to date is not written again.

    Args:
        source: folder of a teacher's cache (``teacher_cache/embedded_squash``).
        target: folder to write, below another ``MODEL.TEACHER.CACHE_DIR`` under the same name.
        dataset: folder of the SynthCC set with the images of the cache.
        truth: ("labels",) or ("labels", "embeddings").

    Raises:
        ClearError: `source` is no finished cache, `target` is a teacher's own cache, or the set lacks an image.
    """
    source, target, dataset = Path(source), Path(target), Path(dataset)
    cache = TeacherCache(source)
    manifest = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    if (target / MANIFEST).is_file() and NOTE not in json.loads((target / MANIFEST).read_text(encoding="utf-8")):
        raise ClearError(f"{target} holds a teacher's own cache. Choose another folder for the true answers.")
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
    """The image's file name in the set."""
    with contextlib.suppress(ValueError):
        file = image.resolve().relative_to(dataset.resolve()).as_posix()
        if file in labels:
            return file
    raise ClearError(
        f"{image} is in the teacher's cache, but not in {dataset / 'index.npz'}. The truth is known for SynthCC only. "
        "Make a cache of its training images alone with `clip3d cache-teacher`."
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
