"""fast-reid's ShuffleNetV2 reads its batch size in a way that tracing writes down as a number.

Applied only while a student is exported: training and inference keep fast-reid's own code.
"""

from __future__ import annotations

import contextlib
from typing import Iterator

from torch import Tensor


@contextlib.contextmanager
def batch_size_left_open() -> Iterator[None]:
    """In this block a traced ShuffleNetV2 takes batches of any size."""
    from fastreid.modeling.backbones.shufflenet import ShuffleV2Block

    original = ShuffleV2Block.channel_shuffle
    ShuffleV2Block.channel_shuffle = _even_and_odd_channels
    try:
        yield
    finally:
        ShuffleV2Block.channel_shuffle = original


def _even_and_odd_channels(block: object, x: Tensor) -> tuple[Tensor, Tensor]:
    """[B, C, H, W] -> channels 0, 2, ... and channels 1, 3, ..., each [B, C / 2, H, W]."""
    return x[:, 0::2], x[:, 1::2]
