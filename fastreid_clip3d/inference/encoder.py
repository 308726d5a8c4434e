"""The model that ``load_model`` returns, whatever it was loaded from and whether PyTorch or onnxruntime runs it.

B: images. d': width of the feature. h, w: input size of the student.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastreid_clip3d.common.images import AnyImage, Channels, check_channels
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.calibration import Comparison, compare_similarity, read_calibration
from fastreid_clip3d.inference.preprocess import InputSize, as_batch, one_by_one, to_pixels

logger = logging.getLogger(__name__)

IMAGES_AT_ONCE = 64
"""The batch size; longer lists go through the student in several batches."""


class ReIDModel(ABC):
    """Pictures in, features out: ``model(images)``.

    Attributes:
        source: where the model comes from: a path, or a name such as ``timm:resnet50``.
        run_folder: the folder of the weights and, after ``clip3d calibrate``, of ``calibration.json``.
        size: (height, width) of the student's input; pictures of any size are resized to it.
        feature_dim: d'.
        fingerprint: hex digest of the weights and of everything else that features depend on. Features with the same
            fingerprint can be compared.
        device: the device that the student runs on.
        backbone_name: ``MODEL.BACKBONE.NAME`` and ``DEPTH``, or the network's name elsewhere.
        metric: ``cosine``; f_id is L2-normalised, so the similarity is a dot product.
    """

    source: str = ""
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
        if isinstance(images, Tensor) and self._is_ready_batch(images):
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
        """The student's input by fast-reid's test transforms: float32 [B, 3, h, w], RGB, 0..255."""
        check_channels(channels)
        pictures = one_by_one(images)
        return self._pixels(pictures, channels, 0, len(pictures)).float().contiguous()

    def compare(self, a: AnyImage, b: AnyImage, channels: Channels = "RGB") -> Comparison:
        """The similarity of two pictures; with a calibration in the run folder also whether they show the same person.

        Args:
            a, b: one picture each, of any kind that the model takes. channels: as in calling the model.

        Raises:
            ClearError: as in calling the model, or a ``calibration.json`` that is damaged or another model's.
        """
        features = self([a, b], channels)
        return compare_similarity(float(features[0] @ features[1]), read_calibration(self.run_folder, self.fingerprint))

    def encode(self, pixels: Tensor) -> Tensor:
        """f_id of pictures of the student's size: uint8 [B, 3, h, w], RGB -> float32 [B, d'], L2-normalised.

        Raises:
            ClearError: pixels of another type, or features that are not finite.
        """
        if pixels.dtype != torch.uint8:
            span = f" from {float(pixels.min()):.3g} to {float(pixels.max()):.3g}" if pixels.numel() else ""
            raise ClearError(
                f"The pixels are {str(pixels.dtype).removeprefix('torch.')}{span}; the model takes uint8, 0 to 255, "
                "and normalises them itself. Give it the crops before your tracker normalises them."
            )
        if len(pixels) and int(pixels.max()) <= 1:
            logger.warning(
                f"All pixels of {len(pixels)} images are 0 or 1: black images, or values from 0 to 1 that were "
                "converted to uint8 before they were multiplied by 255."
            )
        features = self._features(pixels)
        if not torch.isfinite(features).all():
            raise ClearError(
                f"{self.source or self.run_folder}: the student's features are not finite; its weights have diverged."
            )
        return features

    def patch_features(self, images: AnyImage | Iterable[AnyImage], channels: Channels = "RGB") -> Tensor:
        """What the head makes of each patch alone: float32 [B, h', w', d'] on the CPU, not normalised.

        h' and w' are the rows and columns of the last feature map.

        Raises:
            ClearError: as in calling the model, or a model without a feature map.
        """
        raise ClearError(
            f"{self.source or self.run_folder} has no feature map: an exported file gives only the features of whole "
            "pictures. Runs, checkpoints of fast-reid, timm:NAME and open_clip:NAME/TAG have one; give the model that "
            "the file was exported from."
        )

    @abstractmethod
    def _features(self, pixels: Tensor) -> Tensor:
        """L2-normalised features float32 [B, d'] on the CPU, of pixels uint8 [B, 3, h, w] of the model's size."""

    def _pixels(self, pictures: list[AnyImage], channels: Channels, first: int, count: int) -> Tensor:
        """uint8 [B, 3, h, w]. Errors name a picture by its place in the user's list, from `first` and `count`."""
        where = (lambda place: "the image") if count == 1 else (lambda place: f"image {first + place + 1} of {count}")
        pixels = [to_pixels(picture, self.recipe, channels, where(place)) for place, picture in enumerate(pictures)]
        return as_batch(pixels, self.size)

    def _is_ready_batch(self, images: Tensor) -> bool:
        """Whether these pixels have the student's size already, so that PIL need not resize them."""
        return (
            images.dtype == torch.uint8
            and tuple(images.shape[1:]) == (3, *self.size)
            and (not self.recipe.crop or not self.recipe.resize)
        )

    def __repr__(self) -> str:
        height, width = self.size
        return (
            f"{type(self).__name__}({self.source or self.run_folder}: {self.backbone_name}, {height} x {width} pixels "
            f"-> {self.feature_dim} numbers, {self.device})"
        )


class NetworkModel(ReIDModel):
    """A model whose network is a module of PyTorch.

    Attributes:
        network: float images [B, 3, h, w] in 0..255, RGB -> features [B, d'], not normalised; it has the buffers
            ``pixel_mean`` and ``pixel_std``, [1, 3, 1, 1]. In eval mode.
        meta_architecture: the name of its kind.
    """

    network: Any  # fast-reid's meta-architectures have no types; nn.Module does not declare their parts
    meta_architecture: str


def _starts(count: int) -> range:
    return range(0, count, IMAGES_AT_ONCE)
