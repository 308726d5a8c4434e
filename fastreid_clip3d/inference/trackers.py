"""A model as trackers of other libraries call one: a frame and its boxes in, one feature per box out.

None of these libraries is imported: a tracker takes any object that has the method which it calls.

=========================  ==========================================================================
library                    call
=========================  ==========================================================================
boxmot (``reid_model=``)   ``get_features(xyxys, img)``
roboflow ``reid``          ``extract_embeddings(detections, frame)``, ``extract_embeddings_from_paths``
roboflow ``trackers``      ``extract_features(detections, frame)``, the protocol ``ReIDEncoder``
a tracker of one's own     ``encoder(frame, boxes)``
=========================  ==========================================================================

B: boxes. d': width of the feature. H, W: height and width of the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fastreid_clip3d.common.images import Channels, check_channels
from fastreid_clip3d.inference.boxes import check_frame, whole_pixels
from fastreid_clip3d.inference.encoder import ReIDModel


class Detections(Protocol):
    """The part of ``supervision.Detections`` that we read."""

    @property
    def xyxy(self) -> np.ndarray:
        """float [B, 4]: x1, y1, x2, y2 in pixels."""


class TrackerEncoder:
    """Features of the boxes in a frame, under the names that trackers call.

    All calls give float32 [B, d'], L2-normalised; without boxes [0, d']. Boxes are rounded to pixels and cut at the
    frame's edges. Any number of boxes is computed, at most 64 at once.

    Args:
        model: what ``load_model`` returns. channels: the order of a frame's colours; OpenCV's frames are BGR.

    >>> from fastreid_clip3d import load_model
    >>> encoder = TrackerEncoder(load_model("logs/demo/clip3d", device="cpu"))
    >>> features = encoder(np.zeros((240, 320, 3), dtype=np.uint8), [[10, 20, 60, 150], [90, 0, 130, 110]])
    >>> features.shape == (2, encoder.model.feature_dim)
    True
    """

    def __init__(self, model: ReIDModel, channels: Channels = "BGR") -> None:
        check_channels(channels)
        self.model, self.channels = model, channels

    def __call__(self, frame: np.ndarray, boxes: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """Features of the boxes: frame uint8 [H, W, 3], boxes [B, 4] as x1, y1, x2, y2 in pixels.

        Raises:
            ClearError: a frame or boxes of another kind, or boxes that are not finite.
        """
        height, width = check_frame(frame)
        corners = whole_pixels(np.asarray(boxes), height, width)
        crops = [frame[top:bottom, left:right] for left, top, right, bottom in corners]
        return self.model(crops, self.channels).numpy()

    def get_features(self, xyxys: np.ndarray, img: np.ndarray) -> np.ndarray:
        """boxmot's call, as of ``ReID(...).model``: boxes float [B, 4], then the frame."""
        return self(img, xyxys)

    def extract_features(self, detections: Detections, frame: np.ndarray) -> np.ndarray:
        """The call of the protocol ``ReIDEncoder`` in roboflow's trackers, with ``supervision.Detections``."""
        return self(frame, detections.xyxy)

    def extract_embeddings(self, detections: Detections, frame: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        """The call of ``reid.ReIDModel``; `batch_size` is taken and not used."""
        return self(frame, detections.xyxy)

    def extract_embeddings_from_paths(
        self, image_paths: Sequence[str], *, batch_size: int = 32, num_workers: int = 0
    ) -> np.ndarray:
        """The call of ``reid.ReIDModel`` for crops in files; `batch_size` and `num_workers` are taken and not used."""
        return self.model(list(image_paths)).numpy()
