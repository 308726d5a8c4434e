"""Computes the teacher's answers of images, and writes them shard by shard."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ImageOps
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from fastreid_clip3d.common.images import decode_image
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher.cache.files import ImageState, row_type, some, write_shard
from fastreid_clip3d.teacher.clip import Teacher
from fastreid_clip3d.teacher.labels import pack_choices
from fastreid_clip3d.teacher.preprocess import ImageTransform


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


def compute_shards(
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
            write_shard(folder, shard, rows, dict(zip(keys, states)))


def _answer(rows: np.ndarray, sides: torch.Tensor, teacher: Teacher, keys: list[str]) -> None:
    """Fills `rows` with the teacher's answers for images [B, 2, 3, H, W]."""
    answers = teacher.label_images(sides.flatten(0, 1))
    features, scores, choices = (part.unflatten(0, (-1, 2)).cpu().numpy() for part in answers)
    if not np.isfinite(features).all() or np.abs(features).max() > np.finfo(np.float16).max:
        raise ClearError(f"the teacher's answers for {some(keys)} are not finite; check its weights.")
    rows["features"], rows["scores"], rows["choices"] = features, scores, pack_choices(choices)
