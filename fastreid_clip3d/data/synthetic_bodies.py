"""The synthetic half of the training data: rendered naked bodies with their true shape and descriptors (paper, 3.4)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset
from tqdm import tqdm

from fastreid_clip3d.body.synthetic_index import read_index
from fastreid_clip3d.common.dataset_root import below_dataset_root
from fastreid_clip3d.common.images import read_image
from fastreid_clip3d.errors import ClearError

logger = logging.getLogger(__name__)


class SyntheticBodies(Dataset):
    """A folder written by ``clip3d render-bodies`` as items of a training batch.

    Item: ``synthetic_images`` float [3, H, W] 0..255, ``synthetic_betas`` float [10] (of the gendered body),
    ``synthetic_gender`` int (0 female, 1 male), ``synthetic_phrase_choices`` int64 [16] (true descriptors, not CLIP's).

    Args:
        folder: the set's folder.
        transform: PIL image to float tensor [3, H, W].
        flip_probability: of the mirror image, 0..1; the mirror image has the same shape and descriptors.
        cache_mib: we keep all images decoded, as 8-bit grey or, with scenes, RGB, if they fit into so many MiB.

    Raises:
        ClearError: the folder is missing, incomplete or damaged; the message names the command that makes it.
    """

    def __init__(
        self,
        folder: str | Path,
        transform: Callable[[Image.Image], torch.Tensor],
        flip_probability: float = 0.0,
        cache_mib: float = 0.0,
    ) -> None:
        self.index = read_index(folder)
        self.transform = transform
        self.flip_probability = flip_probability
        self.paths = [str(path) for path in self.index.paths]
        self.betas = torch.as_tensor(np.asarray(self.index.betas), dtype=torch.float32)
        self.gender = torch.as_tensor(np.asarray(self.index.gender), dtype=torch.int64)
        self.phrase_choices = torch.as_tensor(np.asarray(self.index.phrase_choices), dtype=torch.int64)
        self.pixels = self._decoded(cache_mib)

    def __len__(self) -> int:
        return len(self.paths)

    def _decoded(self, cache_mib: float) -> torch.Tensor | None:
        """All images in memory that worker processes share, uint8 [N, H, W] or, with scenes, [N, H, W, 3].

        None if they do not fit.
        """
        if not self.paths or cache_mib <= 0:
            return None
        mode = "RGB" if self.index.has_scene else "L"
        first = np.asarray(read_image(self.paths[0]).convert(mode))
        needed = first.size * len(self.paths) / 2**20
        if needed > cache_mib:
            logger.info(
                f"{len(self)} synthetic images take {needed:.0f} MiB, more than DATALOADER.SYNTHETIC_CACHE_MIB="
                f"{cache_mib:g}: they are read from disk each time."
            )
            return None
        pixels = torch.empty((len(self.paths), *first.shape), dtype=torch.uint8)
        progress = tqdm(self.paths, desc="decoding synthetic bodies", unit="image", leave=False, disable=None)
        for position, path in enumerate(progress):
            decoded = np.array(read_image(path).convert(mode))
            if decoded.shape != first.shape:
                raise ClearError(
                    f"{path} is {_size(decoded)} pixels and {self.paths[0]} {_size(first)}: the pictures of a set have "
                    "one size. Render the set again with clip3d render-bodies."
                )
            pixels[position] = torch.from_numpy(decoded)
        return pixels.share_memory_()

    def _image(self, index: int) -> Image.Image:
        if self.pixels is None:
            return read_image(self.paths[index])
        return Image.fromarray(self.pixels[index].numpy()).convert("RGB")

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self._image(index)
        if self.flip_probability > 0 and torch.rand(()).item() < self.flip_probability:
            image = ImageOps.mirror(image)
        return {
            "synthetic_images": self.transform(image),
            "synthetic_betas": self.betas[index],
            "synthetic_gender": int(self.gender[index]),
            "synthetic_phrase_choices": self.phrase_choices[index],
        }


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def synthetic_folder(name_or_path: str) -> Path:
    """The folder of a set: an absolute path as it is, a name below the datasets' folder."""
    return below_dataset_root(name_or_path)
