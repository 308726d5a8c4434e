"""The SyntheticBodies set: grey pictures of bodies whose shapes and descriptors are known (method, Design 3).

On disk, below one folder::

    images/00012_03.png   body 12 in its fourth pose, 8-bit, one channel; with a scene 00012_03.jpg, RGB
    index.npz             one row per picture: names, betas, gender, scores, phrase_choices, poses, cameras, lights,
                          sizes
    meta.json             settings, seed, fingerprints, thresholds, population statistics, version
    parts/                while the set is being made: cameras of finished groups of bodies

Legend: N pictures, M = 16 descriptors, K shape coefficients.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastreid_clip3d.body.archives import DAMAGES
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import NUM_PAIRS

TOOL = "clip3d render-bodies"

VIEW_FIELDS = ("azimuth", "elevation", "distance", "focal_length", "principal_x", "principal_y")
"""Columns of a camera: degrees, degrees, metres, and PyTorch3D's NDC intrinsics."""

LIGHT_FIELDS = ("direction_x", "direction_y", "direction_z", "ambient", "diffuse", "specular")
"""Columns of a light: unit vector towards the light in the world, and its intensities in 0..1."""

_ARRAYS = {  # name: (kind of type, shape after N)
    "names": ("U", ()),
    "betas": ("f", (None,)),
    "gender": ("i", ()),
    "scores": ("f", (NUM_PAIRS,)),
    "phrase_choices": ("i", (NUM_PAIRS,)),
    "poses": ("f", (72,)),
    "cameras": ("f", (len(VIEW_FIELDS),)),
    "lights": ("f", (len(LIGHT_FIELDS),)),
    "sizes": ("i", ()),
}


@dataclass(frozen=True)
class SyntheticIndex:
    """A finished set."""

    folder: Path
    paths: list[str]  # N file names with folder
    betas: np.ndarray  # float32 [N, K], shape coefficients of the gendered body
    gender: np.ndarray  # int8 [N], 0 female, 1 male
    scores: np.ndarray  # float32 [N, 16], descriptor scores
    phrase_choices: np.ndarray  # int64 [N, 16], 0 for phrase 1, 1 for phrase 2
    poses: np.ndarray  # float32 [N, 72], axis-angle, radians
    cameras: np.ndarray  # float32 [N, 6], columns of VIEW_FIELDS
    lights: np.ndarray  # float32 [N, 6], columns of LIGHT_FIELDS
    image_size: tuple[int, int]  # height and width in pixels
    meta: dict[str, Any]  # meta.json

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def has_scene(self) -> bool:
        """Whether the bodies stand in scenes; such pictures have colours."""
        return "scene" in self.meta

    @property
    def version(self) -> str:
        """Hash of everything the set was made from."""
        return self.meta["version"]


def read_index(folder: str | Path) -> SyntheticIndex:
    """Reads and checks a set.

    Raises:
        ClearError: no set there, not finished, damaged, or pictures missing or cut short.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ClearError(
            f"no synthetic bodies at {folder}: make them with {TOOL} --output {folder} and the set's other flags, "
            "such as --size or --scene"
        )
    meta = read_meta(folder)
    if meta is None:
        raise ClearError(f"{folder} has no meta.json: make the set with {TOOL} --output {folder}")
    if not meta.get("complete"):
        raise ClearError(f"the synthetic bodies at {folder} are not finished: run {TOOL} again, it goes on")
    arrays = read_arrays(folder / "index.npz", int(meta["num_images"]))
    _check_pictures(folder, arrays["names"], arrays["sizes"])
    floats = ("betas", "scores", "poses", "cameras", "lights")
    return SyntheticIndex(
        folder=folder,
        paths=[str(folder / "images" / name) for name in arrays["names"]],
        gender=arrays["gender"].astype(np.int8, copy=False),
        phrase_choices=arrays["phrase_choices"].astype(np.int64),
        **{name: arrays[name].astype(np.float32, copy=False) for name in floats},
        image_size=tuple(meta["settings"]["image_size"]),
        meta=meta,
    )


def read_meta(folder: Path) -> dict[str, Any] | None:
    """meta.json of a set, None where there is none; ClearError for a file that is none of ours."""
    path = folder / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ClearError(f"cannot read {path} ({error}): remove {folder} and run {TOOL} again") from error
    if not _is_description(meta):
        raise ClearError(f"{path} is not a description of synthetic bodies: give another folder or remove this one")
    return meta


def _is_description(meta: Any) -> bool:
    if not isinstance(meta, dict) or not {"version", "complete"} <= set(meta):
        return False
    settings, count = meta.get("settings"), meta.get("num_images")
    size = settings.get("image_size") if isinstance(settings, dict) else None
    return isinstance(count, int) and isinstance(size, list) and [type(side) for side in size] == [int, int]


def read_arrays(path: Path, num_images: int) -> dict[str, np.ndarray]:
    """The arrays of an index by name; ClearError if it is missing, damaged or not that of `num_images` pictures."""
    remedy = f"run {TOOL} again, it makes the index anew"
    if not path.is_file():
        raise ClearError(f"{path} is missing: {remedy}")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = sorted(set(_ARRAYS) - set(file.files))
            if missing:
                raise ClearError(f"{path} lacks {', '.join(missing)}: {remedy}")
            arrays = {name: file[name] for name in _ARRAYS}
    except DAMAGES as error:
        raise ClearError(f"{path} is damaged ({error}): {remedy}") from error
    for name, (kind, shape) in _ARRAYS.items():
        array = arrays[name]
        fits = len(array.shape) == len(shape) + 1 and all(w in (None, g) for w, g in zip(shape, array.shape[1:]))
        if array.dtype.kind != kind or not fits or len(array) != num_images:
            wanted = [num_images, *("K" if size is None else size for size in shape)]
            raise ClearError(f"{name} in {path} is {array.dtype} {list(array.shape)}, wanted {wanted}: {remedy}")
    return arrays


def _check_pictures(folder: Path, names: np.ndarray, sizes: np.ndarray) -> None:
    there = sizes_there(folder)
    bad = [str(name) for name, size in zip(names, sizes) if there.get(str(name)) != int(size)]
    if bad:
        missing = sum(name not in there for name in bad)
        raise ClearError(
            f"{len(bad)} of {len(names)} pictures in {folder / 'images'} are missing ({missing}) or cut short "
            f"({len(bad) - missing}), such as {', '.join(bad[:3])}: run {TOOL} again, it makes only those"
        )


def sizes_there(folder: Path) -> dict[str, int]:
    """Bytes of every picture there is."""
    try:
        with os.scandir(folder / "images") as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith((".png", ".jpg"))}
    except FileNotFoundError:
        return {}
