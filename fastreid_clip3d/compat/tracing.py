"""fast-reid's ShuffleNetV2 in an exported file: batches of any size."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def even_and_odd_channels(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """[B, C, H, W] -> channels 0, 2, ... and channels 1, 3, ..., each [B, C / 2, H, W]."""
    return x[:, 0::2], x[:, 1::2]


def fixes_the_batch_size(channel_shuffle: Callable[[Any, Tensor], tuple[Tensor, Tensor]]) -> bool:
    """Whether a trace of the function with 2 images does not take 3."""

    def shuffle(x: Tensor) -> tuple[Tensor, Tensor]:
        return channel_shuffle(None, x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the very number that is looked for
        traced = torch.jit.trace(shuffle, torch.zeros(2, 4, 1, 1), check_trace=False)
    try:
        return traced(torch.zeros(3, 4, 1, 1))[0].shape != (3, 2, 1, 1)
    except RuntimeError:
        return True
