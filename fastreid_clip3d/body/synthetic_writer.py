"""Makes the SyntheticBodies set: poses, cameras, pictures and the index of true shapes (method, Design 3).

Every picture is drawn from the seed and its own position alone, and files appear under their names only when they are
whole: whenever the work stops, the next run with the same settings goes on and ends with the same bytes.
Legend: N pictures, M = 16 descriptors, K shape coefficients. The layout on disk stands in ``synthetic_index``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fastreid_clip3d.body.constants import GENDERS
from fastreid_clip3d.body.encoding import encode_png, npz_bytes
from fastreid_clip3d.body.model import BodyModel, load_body_model
from fastreid_clip3d.body.population_descriptors import describe_population
from fastreid_clip3d.body.poses import load_pose_pool, pool_fingerprint
from fastreid_clip3d.body.rendering import (
    GreyRenderer,
    draw,
    lights_of,
    stand_on_ground,
    to_bytes,
    views_of,
)
from fastreid_clip3d.body.sampling import sample_population
from fastreid_clip3d.body.synthetic_index import (
    LIGHT_FIELDS,
    VIEW_FIELDS,
    SyntheticIndex,
    read_arrays,
    read_index,
    read_meta,
    sizes_there,
)
from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.common.files import check_writable_folder, remove_leftovers, write_atomically
from fastreid_clip3d.common.locks import lock_folder
from fastreid_clip3d.common.resumable import Parts, differences
from fastreid_clip3d.common.threads import one_thread
from fastreid_clip3d.errors import ClearError

FORMAT = 2
"""Raised whenever the same settings would give other pictures or another layout."""
BODIES_AT_ONCE = 5
"""Bodies of one unit of work: few enough to lose little at a stop."""
PICTURES_AT_ONCE = 10
"""Most pictures rendered together: bounds memory. Part of the format of sets with a scene."""
_KEYS_OF_SOME_SETS = ("rasterizer", "scene")
"""Keys of meta.json that a set has only if it was not drawn in the usual way."""


class SyntheticSet:
    """Makes the pictures and the index of one set, or goes on where an earlier run stopped.

    A subclass draws other pictures of the same bodies: it overrides `_render`, `encode`, `ending` and `_configuration`.

    Args:
        folder: where the set goes.
        settings: what it is made of.
        workers: threads that pose, render and write, 0 for one per core.
        device: where pictures are drawn: "cpu", by our rasteriser, or "cuda", by PyTorch3D's. Their pictures differ by
            single levels, so they are two versions of the set.

    Raises:
        ClearError: the folder holds another set, body model or poses cannot be read, or there is no such device.
    """

    ending = ".png"
    """Of the pictures' names."""

    def __init__(self, folder: str | Path, settings: SyntheticSettings, workers: int = 0, device: str = "cpu") -> None:
        self.device = find_device(device)
        self.folder = Path(folder)
        self.settings = settings
        self.workers = workers or os.cpu_count() or 1
        with one_thread():  # sums of the models decide pixels
            self.models: list[BodyModel] = [load_body_model(settings.body_model, gender=gender) for gender in GENDERS]
        self.pool = load_pose_pool(settings.poses)
        self.renderers = [
            GreyRenderer(model.faces, settings.image_size, settings.grey, settings.background) for model in self.models
        ]
        self.configuration = self._configuration()
        self.version = version_of(self.configuration)
        self.betas = self._betas()
        self.parts = Parts(self.folder, "parts", self.version)

    def make(self, progress: bool = True) -> SyntheticIndex:
        """Makes what is missing and returns the finished set."""
        check_writable_folder(self.folder, "--output")
        self._check_same_set(read_meta(self.folder))
        for name in ("images", "parts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        with lock_folder(self.folder):
            meta = read_meta(self.folder)
            there = sizes_there(self.folder)
            if meta is None or not meta["complete"] or not self._is_whole(there):
                self._make_missing(meta, progress)
            shutil.rmtree(self.folder / "parts", ignore_errors=True)
        return read_index(self.folder)

    def _make_missing(self, meta: dict[str, Any] | None, progress: bool) -> None:
        groups = self._groups()
        self._remove_leftovers()
        self._restore_parts(groups)
        waiting = [group for group in groups if not self.parts.is_done(self._part(group).stem)]
        self._check_free_space(sum(len(group) for group in waiting) * self.settings.poses_per_body)
        if meta is None or meta["complete"]:
            self._write_meta(complete=False)
        with one_thread():  # each worker uses one: with more, they would wait for each other
            self._render_all(waiting, progress)
            self._write_index(groups)

    # -- what the set is

    def _configuration(self) -> dict[str, Any]:
        """Everything that decides the bytes; paths are replaced by fingerprints of what they hold."""
        settings = asdict(self.settings)
        settings["image_size"] = list(settings["image_size"])
        del settings["body_model"], settings["poses"]
        drawn_by = {} if self.device.type == "cpu" else {"rasterizer": f"PyTorch3D, {self.device.type}"}
        return {
            "format": FORMAT,
            **drawn_by,
            "settings": settings,
            "body_models": {gender: model.fingerprint() for gender, model in zip(GENDERS, self.models)},
            "pose_pool": pool_fingerprint(self.pool),
        }

    def _betas(self) -> np.ndarray:
        """Shape coefficients of all bodies, float32 [bodies, K]."""
        females, males = -(-self.settings.bodies // 2), self.settings.bodies // 2
        drawn, gender = sample_population(self.settings.seed, females, males, self.models[0].num_betas)
        betas = np.empty_like(drawn)
        for code in range(len(GENDERS)):
            betas[code :: len(GENDERS)] = drawn[gender == code]
        return betas

    def pose_rows(self, body: int) -> np.ndarray:
        """Rows of the pool that a body takes, one for each of its pictures."""
        generator = np.random.default_rng(_seed(self.settings.seed, _POSES, body))
        rows: list[int] = []
        while len(rows) < self.settings.poses_per_body:
            rows.extend(generator.permutation(len(self.pool)).tolist())
        return np.array(rows[: self.settings.poses_per_body])

    def names(self, bodies: range) -> list[str]:
        """File names of the pictures of some bodies, in order."""
        return [
            f"{body:05d}_{pose:02d}{self.ending}" for body in bodies for pose in range(self.settings.poses_per_body)
        ]

    def _groups(self) -> list[range]:
        total = self.settings.bodies
        return [range(total)[first : first + BODIES_AT_ONCE] for first in range(0, total, BODIES_AT_ONCE)]

    # -- making

    def render_body(self, body: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All pictures of one body: uint8 [poses, H, W], or RGB [poses, H, W, 3]; cameras, lights [poses, 6]."""
        count = self.settings.poses_per_body
        groups = [range(count)[first : first + PICTURES_AT_ONCE] for first in range(0, count, PICTURES_AT_ONCE)]
        images, views, lights = zip(*(self._render(body, group) for group in groups))
        return np.concatenate(images), np.concatenate(views), np.concatenate(lights)

    def _render(self, body: int, numbers: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        settings, sex = self.settings, body % len(GENDERS)
        generators = [np.random.default_rng(_seed(settings.seed, _VIEWS, body, number)) for number in numbers]
        draws = [draw(generator, settings.framing) for generator in generators]
        with torch.no_grad():
            betas = torch.from_numpy(self.betas[body]).expand(len(draws), -1)
            poses = self.pool[self.pose_rows(body)[numbers.start : numbers.stop]]
            vertices = stand_on_ground(self.models[sex].pose(betas, poses)[0])
            views = views_of(vertices, draws, settings.image_size, settings.framing)
            lights = lights_of(draws)
            scene = (part.to(self.device) for part in (vertices, views, lights))
            images = self.renderers[sex].render(*scene)
        return to_bytes(images), views.numpy(), lights.numpy()

    def encode(self, image: np.ndarray) -> bytes:
        """A picture of :meth:`render_body` as the content of its file."""
        return encode_png(image)

    def _make_group(self, group: range, stop: threading.Event) -> int:
        cameras, lights = [], []
        sizes: dict[str, int] = {}
        names = iter(self.names(group))
        for body in group:
            if stop.is_set():
                return 0
            images, views, lamps = self.render_body(body)
            cameras.append(views)
            lights.append(lamps)
            for image in images:
                data = self.encode(image)
                name = next(names)
                sizes[name] = len(data)
                write_atomically(self.folder / "images" / name, data, durable=False)
        self._finish(group, {"cameras": np.concatenate(cameras), "lights": np.concatenate(lights)}, sizes)
        return len(sizes)

    def _render_all(self, waiting: list[range], progress: bool) -> None:
        total = self.settings.num_images
        done = total - sum(len(group) for group in waiting) * self.settings.poses_per_body
        stop = threading.Event()
        for model in self.models:  # the first pose sets things up, which every thread would do again
            model.pose(torch.zeros(1, model.num_betas), torch.zeros(1, self.pool.shape[1]))
        executor = ThreadPoolExecutor(self.workers)
        try:
            with tqdm(total=total, initial=done, unit="img", desc="bodies", disable=not progress) as bar:
                futures = {executor.submit(self._make_group, group, stop) for group in waiting}
                while futures:
                    finished, futures = wait(futures, return_when=FIRST_COMPLETED)
                    for future in finished:
                        bar.update(future.result())
        finally:
            stop.set()
            executor.shutdown(wait=True, cancel_futures=True)

    # -- files

    def _part(self, group: range) -> Path:
        """What a group leaves for the index: its cameras and lights."""
        return self.folder / "parts" / f"{group.start:05d}.npz"

    def _finish(self, group: range, arrays: dict[str, np.ndarray], sizes: Mapping[str, int]) -> None:
        """Records a group as done, by the sizes of its pictures."""
        data = npz_bytes(arrays)
        write_atomically(self._part(group), data)
        files = {f"images/{name}": size for name, size in sizes.items()}
        self.parts.finish(self._part(group).stem, {**files, f"parts/{self._part(group).name}": len(data)})

    def _write_meta(self, complete: bool, **more: Any) -> None:
        meta = {
            "version": self.version,
            "complete": complete,
            "num_images": self.settings.num_images,
            **self.configuration,
            "genders": list(GENDERS),
            "camera_fields": list(VIEW_FIELDS),
            "light_fields": list(LIGHT_FIELDS),
            **more,
        }
        write_atomically(self.folder / "meta.json", (json.dumps(meta, indent=2) + "\n").encode())

    def _write_index(self, groups: list[range]) -> None:
        parts, sizes = [], []
        for group in groups:
            with np.load(self._part(group), allow_pickle=False) as part:
                parts.append({name: part[name] for name in ("cameras", "lights")})
            recorded = self.parts.sizes(self._part(group).stem)
            sizes += [recorded[f"images/{name}"] for name in self.names(group)]
        scores, choices, more = describe_population(self.models, self.betas, self.workers)
        repeat = self.settings.poses_per_body
        arrays = {
            "names": np.array(self.names(range(self.settings.bodies))),
            "betas": self.betas.repeat(repeat, 0),
            "gender": (np.arange(self.settings.bodies) % len(GENDERS)).astype(np.int8).repeat(repeat),
            "scores": scores.repeat(repeat, 0),
            "phrase_choices": choices.astype(np.int8).repeat(repeat, 0),
            "poses": self.pool.numpy()[np.concatenate([self.pose_rows(b) for b in range(self.settings.bodies)])],
            **{name: np.concatenate([part[name] for part in parts]) for name in ("cameras", "lights")},
            "sizes": np.array(sizes, np.int32),
        }
        write_atomically(self.folder / "index.npz", npz_bytes(arrays))
        self._write_meta(complete=True, **more)

    def _check_same_set(self, meta: dict[str, Any] | None) -> None:
        """Refuses a folder that holds something else than this set."""
        if meta is None:
            if (self.folder / "index.npz").exists() or sizes_there(self.folder):
                raise ClearError(f"{self.folder} holds pictures but no meta.json: give another --output or empty it")
            return
        if meta["version"] == self.version:
            return
        keys = dict.fromkeys((*self.configuration, *_KEYS_OF_SOME_SETS))
        found = differences({key: meta.get(key) for key in keys}, {key: self.configuration.get(key) for key in keys})
        changes = [change.removeprefix("settings.") for change in found]
        raise ClearError(
            f"{self.folder} holds a set made with other settings ({'; '.join(changes) or 'unknown'}): "
            "give another --output, or remove that folder to make the set anew"
        )

    def _is_whole(self, there: dict[str, int]) -> bool:
        try:
            arrays = read_arrays(self.folder / "index.npz", self.settings.num_images)
        except ClearError:
            return False
        return all(there.get(str(name)) == int(size) for name, size in zip(arrays["names"], arrays["sizes"]))

    def _restore_parts(self, groups: list[range]) -> None:
        """Takes the parts of a finished set out of its index, so that one lost picture does not cost all of them."""
        try:
            arrays = read_arrays(self.folder / "index.npz", self.settings.num_images)
        except ClearError:
            return
        for group in groups:
            if not self.parts.sizes(self._part(group).stem):
                first, stop = (body * self.settings.poses_per_body for body in (group.start, group.stop))
                sizes = dict(zip(self.names(group), arrays["sizes"][first:stop].tolist()))
                self._finish(group, {name: arrays[name][first:stop] for name in ("cameras", "lights")}, sizes)

    def _remove_leftovers(self) -> None:
        """Removes half-written files of a run that was killed."""
        for place in (self.folder, self.folder / "images", self.folder / "parts"):
            remove_leftovers(place)

    def _check_free_space(self, num_images: int) -> None:
        height, width = self.settings.image_size
        needed = num_images * (4096 * -(-height * width // 16384) + 2048) + (1 << 20)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise ClearError(
                f"{free / 2**20:.0f} MiB are free at {self.folder}, about {needed / 2**20:.0f} MiB are needed for "
                f"{num_images} pictures: free some space or give another --output"
            )


def version_of(configuration: dict[str, Any]) -> str:
    """Hash of everything that decides the bytes of a set."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:16]


_POSES, _VIEWS = 1, 2


def _seed(seed: int, purpose: int, *position: int) -> np.random.SeedSequence:
    """Seed of one purpose and one position, unrelated to all others."""
    return np.random.SeedSequence([seed, purpose, *position])
