"""Writes a SynthCC set to disk, shard by shard.

On disk::

    SynthCC-tiny/
      train/ query/ gallery/ val_query/ val_gallery/   PPPP_oO_cC_NN.jpg: person, outfit, camera, number
      index.npz   one row per image: files, split, pid, camid, clothes_id, gender, betas, scores, phrase_choices, ...
      meta.json   settings, seed, version, counts, thresholds of the descriptors
      .shards/    what is done; a run that was stopped goes on from there

One shard is always rendered by one process with one thread in the same order, so the number of workers cannot change
a byte.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
import json
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastreid_clip3d.body.constants import GENDERS
from fastreid_clip3d.body.descriptors import population_thresholds
from fastreid_clip3d.body.poses import load_pose_pool
from fastreid_clip3d.common.files import remove_leftovers, write_atomically
from fastreid_clip3d.common.locks import lock_folder
from fastreid_clip3d.common.processes import end_with_parent
from fastreid_clip3d.common.resumable import Parts, differences
from fastreid_clip3d.common.threads import one_thread
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.synthcc.camera import CAMERAS
from fastreid_clip3d.synthcc.figure import load_figure
from fastreid_clip3d.synthcc.index import has_index
from fastreid_clip3d.synthcc.plan import (
    JPEG_QUALITY,
    SPLITS,
    ImagePlan,
    SetConfig,
    plan_person,
    settings_of,
    version_of,
)
from fastreid_clip3d.synthcc.sampling import label_people, render_plans

RECORDS = ".shards"
PEOPLE_PER_SHARD: int = 4
"""Another value gives other images, because those rendered together influence each other slightly.

Raise FORMAT with it.
"""


@dataclasses.dataclass(frozen=True)
class Shard:
    """Some people of one population."""

    name: str
    population: str
    numbers: tuple[int, ...]


def shards_of(config: SetConfig) -> list[Shard]:
    """The set's shards in order."""
    shards = []
    for population, first, count in config.populations:
        everyone = range(first, first + count)
        for place in range(0, count, PEOPLE_PER_SHARD):
            numbers = tuple(everyone[place : place + PEOPLE_PER_SHARD])
            shards.append(Shard(f"{population}_{numbers[0]:05d}", population, numbers))
    return shards


def _plans(shard: Shard, config: SetConfig, num_poses: int) -> list[ImagePlan]:
    return [plan for number in shard.numbers for plan in plan_person(config, shard.population, number, num_poses)]


def make_shard(folder: str, config: SetConfig, shard: Shard, version: str) -> int:
    """Renders and writes one shard; returns its number of images. Run with one thread (see the module's docstring)."""
    poses = load_pose_pool().numpy()
    sizes = {}
    with one_thread():
        plans, size = _plans(shard, config, len(poses)), (config.height, config.width)
        for group, pictures in render_plans(plans, config.seed, config.variant, size, config.framing, poses):
            arrays = pictures.images.permute(0, 2, 3, 1).contiguous().numpy()
            for plan, array in zip(group, arrays):
                encoded = io.BytesIO()
                Image.fromarray(array).save(encoded, "JPEG", quality=JPEG_QUALITY)
                write_atomically(Path(folder) / plan.file, encoded.getvalue(), durable=False)
                sizes[plan.file] = encoded.tell()
    parts_of(folder, version).finish(shard.name, sizes)
    return len(sizes)


def parts_of(folder: str | Path, version: str) -> Parts:
    """The records of the finished shards."""
    return Parts(folder, RECORDS, version)


def generate_set(
    root: str | Path, config: SetConfig, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Makes the set ``<root>/<config.folder>``, or completes it; returns the folder.

    Any number of workers (processes) gives the same bytes. `progress` gets (images done, images of the whole set).

    Raises:
        ClearError: the folder holds another version, the disk is full, or a process died.
    """
    folder = Path(root) / config.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClearError(f"{folder} cannot be made ({error.strerror}). Choose another place with --root.") from error
    with lock_folder(folder):
        _complete(folder, config, workers, progress)
    return folder


def _complete(folder: Path, config: SetConfig, workers: int, progress: Callable[[int, int], None] | None) -> None:
    version = version_of(config)
    meta = _read_meta(folder)
    if meta is not None and meta.get("version") != version:
        raise ClearError(_other_version(folder, meta, config))
    for split in (*SPLITS, RECORDS):
        (folder / split).mkdir(exist_ok=True)
        remove_leftovers(folder / split)
    if meta is None:
        _write_meta(folder, {"version": version, "complete": False, **settings_of(config)})
    shards = shards_of(config)
    per_person = config.outfits * config.images_per_outfit
    total = per_person * sum(len(shard.numbers) for shard in shards)
    finished = parts_of(folder, version)
    missing = [shard for shard in shards if not finished.is_done(shard.name)]
    done = total - per_person * sum(len(shard.numbers) for shard in missing)
    if progress:
        progress(done, total)
    for count in _run(folder, config, missing, version, workers):
        done += count
        if progress:
            progress(done, total)
    if missing or meta is None or not meta.get("complete") or not has_index(folder):
        _write_index(folder, config, version)


def _other_version(folder: Path, meta: dict[str, Any], config: SetConfig) -> str:
    """What to do about a folder that holds other images than those that are to be rendered."""
    keep = "To keep that set, render the new one below another folder with --root"
    anew = "To render it anew, remove the folder and give the same command again."
    if "format" not in meta:
        return (
            f"{folder} was rendered by an earlier version of this program, before formats had numbers (version "
            f"{meta.get('version')}). It can still be trained on and tested on, but do not compare its scores with "
            f"those of today's images. {keep}. {anew}"
        )
    settings = settings_of(config)
    changes = "; ".join(differences({key: meta.get(key) for key in settings}, settings))
    return f"{folder} holds another version of this set ({changes}). {keep}. {anew}"


def _run(folder: Path, config: SetConfig, shards: list[Shard], version: str, workers: int) -> Iterator[int]:
    if workers <= 1 or len(shards) <= 1:
        for shard in shards:
            yield make_shard(str(folder), config, shard, version)
        return
    # As torch's DataLoader does it: forks with one thread each, where there is fork.
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    for sex in (0, 1):
        load_figure(sex)  # once, for all forks
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(shards)), mp_context=context, initializer=_begin_worker
    )
    try:
        futures = [pool.submit(make_shard, str(folder), config, shard, version) for shard in shards]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ClearError(
            "A rendering process ended unexpectedly (out of memory?). Run the same command again, with fewer "
            "--workers; it goes on where it stopped."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    end_with_parent()
    torch.set_num_threads(1)


def _read_meta(folder: Path) -> dict | None:
    path = folder / "meta.json"
    if not path.exists():
        return None
    remedy = "Remove the folder, or choose another with --root."
    try:
        meta = json.loads(path.read_text())
    except ValueError as error:
        raise ClearError(f"{path} is not valid JSON ({error}). {remedy}") from error
    if not isinstance(meta, dict):
        raise ClearError(f"{path} does not describe a SynthCC set. {remedy}")
    return meta


def _write_meta(folder: Path, meta: dict) -> None:
    write_atomically(folder / "meta.json", (json.dumps(meta, indent=1, sort_keys=True) + "\n").encode())


def _write_index(folder: Path, config: SetConfig, version: str) -> None:
    num_poses = len(load_pose_pool())
    plans = [plan for shard in shards_of(config) for plan in _plans(shard, config, num_poses)]
    people = {plan.person.number: plan.person for plan in plans}
    numbers = np.array(sorted(people))
    betas = np.stack([people[number].betas for number in numbers])
    gender = np.array([people[number].gender for number in numbers], dtype=np.int8)
    with one_thread():
        scores, choices = label_people(betas, gender)
        thresholds = {name: population_thresholds(load_figure(sex).model).tolist() for sex, name in enumerate(GENDERS)}
    place = np.searchsorted(numbers, [plan.person.number for plan in plans])
    arrays: dict[str, Any] = {
        "files": np.array([plan.file for plan in plans]),
        "split": np.array([plan.split for plan in plans]),
        "pid": numbers[place],
        "camid": np.array([plan.shot.camera for plan in plans], dtype=np.int64),
        "clothes_id": np.array([plan.clothes_id for plan in plans], dtype=np.int64),
        "outfit": np.array([plan.outfit for plan in plans], dtype=np.int64),
        "pose": np.array([plan.shot.pose for plan in plans], dtype=np.int64),
        "heading": np.array([plan.shot.heading for plan in plans], dtype=np.float32),
        "gender": gender[place],
        "betas": betas[place],
        "scores": scores[place],
        "phrase_choices": choices[place],
    }
    write_atomically(folder / "index.npz", lambda stream: np.savez_compressed(stream, **arrays))
    splits, counts = np.unique(arrays["split"], return_counts=True)
    meta = {
        "version": version,
        "complete": True,
        **settings_of(config),
        "cameras": [camera.name for camera in CAMERAS],
        "counts": dict(zip(splits.tolist(), counts.tolist())),
        "thresholds": thresholds,
    }
    _write_meta(folder, meta)
