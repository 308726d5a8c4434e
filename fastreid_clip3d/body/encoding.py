"""Pictures and arrays as the content of files. The bytes depend on the content alone."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np


def encode_png(image: np.ndarray) -> bytes:
    """A uint8 picture [H, W] as PNG."""
    return cv2.imencode(".png", image, (cv2.IMWRITE_PNG_COMPRESSION, 4))[1].tobytes()


def npz_bytes(arrays: dict[str, Any]) -> bytes:
    """A compressed npz whose bytes depend on the arrays alone."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
