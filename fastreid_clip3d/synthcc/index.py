"""The table of a SynthCC set, ``index.npz``: what is true of each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastreid_clip3d.body.archives import DAMAGES
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import NUM_PAIRS

INDEX = "index.npz"
COLUMNS = (
    "files", "split", "pid", "camid", "clothes_id", "outfit", "pose", "heading", "gender", "betas", "scores",
    "phrase_choices",
)  # fmt: skip
"""All columns of the table."""


def read_columns(folder: str | Path, *names: str) -> list[np.ndarray]:
    """Columns of the table, such as ``files``, ``split``, ``betas``: one row per image.

    Raises:
        ClearError: `folder` has no such table, it is damaged, or it lacks a column.
    """
    path = Path(folder) / INDEX
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except DAMAGES as error:
        raise ClearError(
            f"{path} cannot be read as the table of a SynthCC set, which holds the true descriptors ({error}). Render "
            "the set with `clip3d render-people`; of a finished set it makes only the table."
        ) from error


def has_index(folder: str | Path) -> bool:
    """Whether the folder has a table whose columns can all be read."""
    try:
        read_columns(folder, *COLUMNS)
    except ClearError:
        return False
    return True


def true_choices(folder: str | Path, splits: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The true phrase_choices, int64 [16], 0 for phrase 1, by file name (``train/0000_o1_c3_00.jpg``); () = all splits.

    Raises:
        ClearError: no such table, or its choices are not [N, 16] of 0 and 1.
    """
    files, choices, *split = read_columns(folder, "files", "phrase_choices", *(["split"] if splits else []))
    if choices.shape != (len(files), NUM_PAIRS) or not np.isin(choices, (0, 1)).all():
        raise ClearError(
            f"{Path(folder) / INDEX}: phrase_choices is not [{len(files)}, {NUM_PAIRS}] of 0 and 1. Render the set "
            "anew."
        )
    wanted = np.isin(split[0], splits) if splits else np.ones(len(files), dtype=bool)
    return {str(file): row for file, row in zip(files[wanted], choices[wanted].astype(np.int64))}


def true_choices_of(folder: str | Path, paths: Sequence[str]) -> np.ndarray:
    """The true phrase_choices of images of the set, int64 [N, 16], in the order of their paths.

    Raises:
        ClearError: as :func:`true_choices`, or the table does not know an image.
    """
    choices = true_choices(folder)
    names = [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
    unknown = [name for name in names if name not in choices]
    if unknown:
        raise ClearError(
            f"{Path(folder) / INDEX} does not know {unknown[0]}; the images and the table belong to different runs. "
            "Render the set anew."
        )
    return np.stack([choices[name] for name in names]) if names else np.zeros((0, NUM_PAIRS), np.int64)
