"""Features of many pictures: threads read ahead, batches are full, and an unreadable picture stops nothing.

d': width of the feature.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.pictures import Entry
from fastreid_clip3d.inference.preprocess import InputSize, as_batch, to_pixels

logger = logging.getLogger(__name__)

Outcome = Tensor | UnreadableImage


class Encoder(Protocol):
    """Computes vectors of pictures: a ``ReIDModel``, or one that averages its patches."""

    recipe: InputSize

    @property
    def size(self) -> tuple[int, int]:
        """Input (h, w)."""

    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, h, w], RGB -> float32 [B, d']."""


def extract(
    model: Encoder,
    entries: Iterable[Entry],
    batch_size: int = 64,
    progress: bool = False,
    *,
    threads: int = 0,
    unreadable_frames: list[tuple[Path, UnreadableImage]] | None = None,
) -> Iterator[tuple[Entry, Outcome]]:
    """Yields each entry in order with its feature, float32 [d'], L2-normalised, on the CPU; or with the error.

    A tracklet's feature is the normalised mean of its frames' features. Frames that cannot be read are left out and
    named in the log; a tracklet without a readable frame has no feature.

    Args:
        batch_size: images that go through the student at once, 1 or more.
        progress: whether a bar of images is shown on stderr.
        threads: threads that read; 0: one per processor, 8 at most.
        unreadable_frames: we append the frames that are left out of tracklets, and why.
    """
    if batch_size < 1:
        raise ClearError(f"The batch size is {batch_size}; it must be 1 or more.")
    frames = _frames(entries)
    total = sum(len(entry.frames) for entry in entries) if isinstance(entries, (list, tuple)) else None
    pool = ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), thread_name_prefix="read-image")
    bar = tqdm(total=total, desc="features", unit="image", disable=not progress, mininterval=0.5)
    gathering = _Gathering(unreadable_frames)
    coming: deque[tuple[Entry, Future]] = deque()
    try:
        exhausted = False
        while not exhausted or coming:
            while not exhausted and len(coming) < 2 * batch_size:
                following = next(frames, None)
                if following is None:
                    exhausted = True
                else:
                    coming.append((following[0], pool.submit(_read, following[1], model)))
            batch = [coming.popleft() for _ in range(min(batch_size, len(coming)))]
            results = [(entry, future.result()) for entry, future in batch]
            pixels = [result for _, result in results if isinstance(result, np.ndarray)]
            features = iter(model.encode(as_batch(pixels, model.size)) if pixels else ())
            for entry, result in results:
                outcome = next(features) if isinstance(result, np.ndarray) else result
                yield from gathering.add(entry, outcome)
            bar.update(len(batch))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        bar.close()


def _frames(entries: Iterable[Entry]) -> Iterator[tuple[Entry, Path]]:
    for entry in entries:
        for frame in entry.frames:
            yield entry, frame


def _read(path: Path, model: Encoder) -> np.ndarray | UnreadableImage:
    try:
        return to_pixels(path, model.recipe)
    except UnreadableImage as error:
        return error
    except MemoryError:
        return UnreadableImage(f"{path} cannot be read as an image (it does not fit into memory).")


class _Gathering:
    """Joins frames, which come in order, to entries."""

    def __init__(self, unreadable_frames: list[tuple[Path, UnreadableImage]] | None) -> None:
        self.unreadable_frames = unreadable_frames
        self._features: list[Tensor] = []
        self._errors: list[tuple[Path, UnreadableImage]] = []

    def add(self, entry: Entry, outcome: Outcome) -> Iterator[tuple[Entry, Outcome]]:
        if isinstance(outcome, Tensor):
            self._features.append(outcome)
        else:
            self._errors.append((entry.frames[len(self._features) + len(self._errors)], outcome))
        if len(self._features) + len(self._errors) < len(entry.frames):
            return
        features, errors = self._features, self._errors
        self._features, self._errors = [], []
        if not features:
            yield entry, errors[0][1] if len(errors) == 1 else _whole_tracklet(entry, errors)
            return
        for _, error in errors:
            logger.warning(f"{entry.name}: a frame is left out: {error}")
        if errors and self.unreadable_frames is not None:
            self.unreadable_frames.extend(errors)
        yield entry, features[0] if len(features) == 1 else F.normalize(torch.stack(features).mean(0), dim=0)


def _whole_tracklet(entry: Entry, errors: list[tuple[Path, UnreadableImage]]) -> UnreadableImage:
    return UnreadableImage(f"{entry.name}: none of its {len(errors)} frames can be read; the first: {errors[0][1]}")
