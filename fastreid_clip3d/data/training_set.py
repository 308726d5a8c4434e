"""The training set of the method: real images with the teacher's inputs, synthetic bodies with their true shapes.

Items are dicts of tensors, ints and strings (fast-reid's collator would silently drop anything else). Keys of the
synthetic half begin with ``synthetic_``; :func:`collate` keeps the halves of a batch apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset, default_collate

from fastreid_clip3d.common.images import read_image
from fastreid_clip3d.data.records import clothes_of, paths_of
from fastreid_clip3d.data.synthetic_bodies import SyntheticBodies

Transform = Callable[[Image.Image], torch.Tensor]


class TeacherAnswers(Protocol):
    """Teacher features that were computed before training (``teacher.cache.TeacherCache``)."""

    def lookup(self, path: str, flipped: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """g, float32 [d], and phrase_choices, int64 [16], of an image or its mirror image."""


class RealImages(Dataset):
    """Images of people, with identity, camera and clothes as class numbers from 0.

    We choose the mirror image here and not in the transforms, so that the teacher gets the same side as the student.
    The teacher gets no other augmentation.

    Args:
        records: (path, pid, camid) tuples, ``Record`` or plain.
        transform: PIL image to float tensor [3, H, W], 0..255.
        flip_probability: of the mirror image, 0..1.
        teacher_transform: PIL image to the teacher's input [3, h, w]; None: no key ``teacher_images``.
        teacher_answers: computed answers; None: no keys ``teacher_features`` and ``phrase_choices``.
    """

    def __init__(
        self,
        records: Sequence[tuple],
        transform: Transform,
        flip_probability: float = 0.0,
        teacher_transform: Transform | None = None,
        teacher_answers: TeacherAnswers | None = None,
    ) -> None:
        self.img_items = list(records)
        self.transform = transform
        self.flip_probability = flip_probability
        self.teacher_transform = teacher_transform
        self.teacher_answers = teacher_answers
        self.pids = sorted({record[1] for record in self.img_items})
        self.cams = sorted({record[2] for record in self.img_items})
        outfits = {(record[1], clothes_of(record)) for record in self.img_items}
        self.outfits = sorted(outfit for outfit in outfits if outfit[1] >= 0)
        self.pid_dict = {pid: index for index, pid in enumerate(self.pids)}
        self.cam_dict = {camid: index for index, camid in enumerate(self.cams)}
        self.clothes_dict = {outfit: index for index, outfit in enumerate(self.outfits)}

    def __len__(self) -> int:
        return len(self.img_items)

    @property
    def num_classes(self) -> int:
        return len(self.pids)

    @property
    def num_cameras(self) -> int:
        return len(self.cams)

    @property
    def clothes_of_person(self) -> torch.Tensor:
        """Whether an outfit belongs to a person: bool [persons, outfits]."""
        owned = torch.zeros(len(self.pids), len(self.outfits), dtype=torch.bool)
        for (pid, _), outfit in self.clothes_dict.items():
            owned[self.pid_dict[pid], outfit] = True
        return owned

    @property
    def image_paths(self) -> list[str]:
        """Every image file that training may read, the frames of tracklets included."""
        return [path for record in self.img_items for path in paths_of(record)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.img_items[index]
        path = self._image_path(record)
        image = read_image(path)
        flipped = self.flip_probability > 0 and torch.rand(()).item() < self.flip_probability
        if flipped:
            image = ImageOps.mirror(image)
        item = {
            "images": self.transform(image),
            "targets": self.pid_dict[record[1]],
            "camids": self.cam_dict[record[2]],
            "clothes_ids": self.clothes_dict.get((record[1], clothes_of(record)), -1),
            "img_paths": path,
        }
        if self.teacher_transform is not None:
            item["teacher_images"] = self.teacher_transform(image)
        if self.teacher_answers is not None:
            item["teacher_features"], item["phrase_choices"] = self.teacher_answers.lookup(path, flipped)
        return item

    @staticmethod
    def _image_path(record: tuple) -> str:
        """The image itself, or one frame of a tracklet at random."""
        paths = paths_of(record)
        return paths[0] if len(paths) == 1 else paths[int(torch.randint(len(paths), ()).item())]


class MixedImages(Dataset):
    """Real images at 0 .. R-1, synthetic ones behind them.

    Its length, classes and items are those of the real half, from which fast-reid derives an epoch and the classifier.
    """

    def __init__(self, real: RealImages, synthetic: SyntheticBodies) -> None:
        self.real, self.synthetic = real, synthetic
        self.img_items = real.img_items

    def __len__(self) -> int:
        return len(self.real)

    @property
    def num_classes(self) -> int:
        return self.real.num_classes

    @property
    def num_cameras(self) -> int:
        return self.real.num_cameras

    @property
    def clothes_of_person(self) -> torch.Tensor:
        return self.real.clothes_of_person

    @property
    def image_paths(self) -> list[str]:
        return self.real.image_paths

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < len(self.real):
            return self.real[index]
        return self.synthetic[index - len(self.real)]


def collate(items: Sequence[dict[str, Any]], channels_last: bool = False) -> dict[str, Any]:
    """One flat dict for a batch of real and synthetic items in any order; each half is stacked on its own.

    With `channels_last` the images of both halves have that memory layout.
    """
    real = [item for item in items if "images" in item]
    synthetic = [item for item in items if "images" not in item]
    batch = default_collate(real) if real else {}
    if synthetic:
        batch.update(default_collate(synthetic))
    if channels_last:
        for key in ("images", "synthetic_images"):
            if key in batch:
                batch[key] = batch[key].contiguous(memory_format=torch.channels_last)
    return batch
