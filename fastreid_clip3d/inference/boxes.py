"""Boxes of people in a frame, in pixels: from a file or a detector to whole pixels inside the frame."""

from __future__ import annotations

import numpy as np

from fastreid_clip3d.errors import ClearError


def whole_pixels(boxes: np.ndarray, height: int, width: int, margin: float = 0.0) -> np.ndarray:
    """Boxes rounded to pixels and cut at the frame's edges; each keeps at least one pixel.

    Args:
        boxes: x1, y1, x2, y2 in pixels, [B, 4]; x2 and y2 are excluded, as in slices. [0] stands for no boxes.
        height, width: of the frame. margin: the box grows by this share of its size on each side.

    Returns:
        int64 [B, 4].

    Raises:
        ClearError: another shape, or coordinates that are not finite.

    >>> whole_pixels(np.array([[-3.0, 2.4, 5.6, 90.0]]), height=48, width=64).tolist()
    [[0, 2, 6, 48]]
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.size == 0:
        return np.zeros((0, 4), dtype=np.int64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ClearError(
            f"The boxes have shape {boxes.shape}; they must be [B, 4]: x1, y1, x2, y2 in pixels, without rotation."
        )
    wrong = ~np.isfinite(boxes).all(axis=1)
    if wrong.any():
        raise ClearError(
            f"Box {int(wrong.argmax())} of {len(boxes)} is {boxes[wrong.argmax()].tolist()}; leave out boxes that are "
            "not finite."
        )
    grow = margin * np.concatenate([boxes[:, :2] - boxes[:, 2:], boxes[:, 2:] - boxes[:, :2]], axis=1)
    corners = np.clip(np.round(boxes + grow), -(2.0**31), 2.0**31).astype(np.int64)
    left, top = corners[:, 0].clip(0, width - 1), corners[:, 1].clip(0, height - 1)
    right, bottom = (
        np.maximum(corners[:, 2].clip(0, width), left + 1),
        np.maximum(corners[:, 3].clip(0, height), top + 1),
    )
    return np.stack([left, top, right, bottom], axis=1)


def check_frame(frame: np.ndarray) -> tuple[int, int]:
    """Height and width of a frame.

    Raises:
        ClearError: it is no uint8 array [H, W, 3].
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        kind = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ClearError(f"The frame is {kind}; it must be a uint8 array [H, W, 3], as OpenCV reads it.")
    return frame.shape[0], frame.shape[1]
