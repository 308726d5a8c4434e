"""What every loaded student can do, whether PyTorch or onnxruntime runs it.

B: images. d': width of the feature. h, w: input size of the student.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastreid_clip3d.common.images import AnyImage, Channels, check_channels
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.calibration import compare_similarity, read_calibration
from fastreid_clip3d.inference.preprocess import InputSize, as_batch, one_by_one, to_pixels

if TYPE_CHECKING:
    from fastreid_clip3d.evaluation.calibration import Comparison

IMAGES_AT_ONCE = 64
"""Longer lists go through the student in batches of this size."""


class ReIDModel:
    """Pictures in, features out: ``model(images)``.

    Attributes:
        run_folder: where the weights lie, and ``calibration.json`` if there is one.
        size: (height, width) of the student's input; pictures of any size are resized to it.
        feature_dim: d'.
        fingerprint: hex digest of the weights and of everything else that features depend on; features with the same
            fingerprint can be compared.
        device: where the student runs.
        backbone_name: ``MODEL.BACKBONE.NAME`` and ``DEPTH``.
        metric: how features are compared, ``cosine``: f_id is L2-normalised, so a dot product is the similarity.
    """

    run_folder: Path
    feature_dim: int
    fingerprint: str
    device: torch.device
    backbone_name: str
    metric: str = "cosine"
    recipe: InputSize

    @property
    def size(self) -> tuple[int, int]:
        return self.recipe.size

    def __call__(self, images: AnyImage | Iterable[AnyImage], channels: Channels = "RGB") -> Tensor:
        """f_id of each image, L2-normalised: float32 [B, d'] on the CPU; no images give [0, d'].

        Args:
            images: a path, a PIL image or a uint8 array [H, W, 3] or [H, W] (B = 1); a sequence of these, of any sizes;
                a uint8 tensor [B, 3, H, W].
            channels: "RGB" or "BGR", the order of the colours in arrays and tensors. OpenCV's arrays are BGR.

        Raises:
            UnreadableImage: an image file that cannot be read. ClearError: pixels that are not uint8, an image without
                area (named by its place), an unknown order of channels.
        """
        check_channels(channels)
        if self._is_ready_batch(images):
            pixels = images if channels == "RGB" else images.flip(1)
            parts = [self.encode(pixels[start : start + IMAGES_AT_ONCE]) for start in _starts(len(pixels))]
        else:
            pictures = one_by_one(images)
            parts = [
                self.encode(self._pixels(pictures[start : start + IMAGES_AT_ONCE], channels, start, len(pictures)))
                for start in _starts(len(pictures))
            ]
        return torch.cat(parts) if parts else torch.zeros(0, self.feature_dim)

    def preprocess(self, images: AnyImage | Iterable[AnyImage], channels: Channels = "RGB") -> Tensor:
        """What the student's ``forward`` takes, by fast-reid's test transforms: float32 [B, 3, h, w], RGB, 0..255."""
        check_channels(channels)
        pictures = one_by_one(images)
        return self._pixels(pictures, channels, 0, len(pictures)).float().contiguous()

    def compare(self, a: AnyImage, b: AnyImage, channels: Channels = "RGB") -> Comparison:
        """How alike two pictures are and, where the run folder has a calibration, whether they show the same person.

        Args:
            a, b: one picture each, of any kind that the model takes.
            channels: as in calling the model.

        Raises:
            ClearError: as in calling the model, or a ``calibration.json`` that is damaged or another model's.
        """
        features = self([a, b], channels)
        return compare_similarity(float(features[0] @ features[1]), read_calibration(self.run_folder, self.fingerprint))

    def encode(self, pixels: Tensor) -> Tensor:
        """f_id of pictures of the student's size: uint8 [B, 3, h, w], RGB -> float32 [B, d'], normalised."""
        features = self._features(pixels)
        if not torch.isfinite(features).all():
            raise ClearError(f"{self.run_folder}: the student's features are not finite; its weights have diverged.")
        return features

    def _features(self, pixels: Tensor) -> Tensor:
        raise NotImplementedError

    def _pixels(self, pictures: list[AnyImage], channels: Channels, first: int, count: int) -> Tensor:
        """uint8 [B, 3, h, w]; `first` and `count` say in errors where these pictures stand in the user's list."""
        where = (lambda place: "the image") if count == 1 else (lambda place: f"image {first + place + 1} of {count}")
        pixels = [to_pixels(picture, self.recipe, channels, where(place)) for place, picture in enumerate(pictures)]
        return as_batch(pixels, self.size)

    def _is_ready_batch(self, images: object) -> bool:
        """Whether these are pixels of the right size already, which need no way through PIL."""
        return (
            isinstance(images, Tensor)
            and images.dtype == torch.uint8
            and tuple(images.shape[1:]) == (3, *self.size)
            and (not self.recipe.crop or not self.recipe.resize)
        )

    def __repr__(self) -> str:
        height, width = self.size
        return (
            f"{type(self).__name__}({self.run_folder}: {self.backbone_name}, {height} x {width} pixels -> "
            f"{self.feature_dim} numbers, {self.device})"
        )


def _starts(count: int) -> range:
    return range(0, count, IMAGES_AT_ONCE)
