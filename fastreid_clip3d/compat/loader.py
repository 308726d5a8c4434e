"""A data loader that brings batches to the model's device, on CUDA and on a CPU.

fast-reid's ``DataLoaderX`` opens a CUDA stream whatever ``MODEL.DEVICE`` says, and a worker's error leaves its
background thread dead and the training waiting for ever. This one keeps the idea (the next batch is copied while the
current one is used) and lets errors through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.utils.data import DataLoader

from fastreid_clip3d.compat.replacement import Reached

_device: torch.device | None = None


def use_device(device: str) -> None:
    """Sets where batches go, for loaders made by fast-reid's own functions, which do not know ``MODEL.DEVICE``."""
    global _device
    _device = torch.device(device)


def _default_device(local_rank: int) -> torch.device:
    device = _device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local_rank)  # type: ignore[unreachable]  # torch types index as int
    return device


class DeviceLoader(DataLoader):
    """Same signature and batches as fast-reid's ``DataLoaderX``: a batch's top-level tensors are on the device."""

    def __init__(self, local_rank: int, **kwargs: Any) -> None:
        self.target_device = _default_device(local_rank)
        kwargs["pin_memory"] = kwargs.get("pin_memory", False) and self.target_device.type == "cuda"
        super().__init__(**kwargs)

    def __iter__(self) -> Any:  # an iterator of dicts; torch's own class is private
        batches = super().__iter__()
        if self.target_device.type != "cuda":
            return batches
        return self._copied_ahead(batches)

    def _copied_ahead(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        stream = torch.cuda.Stream(self.target_device)
        ready = None
        for batch in batches:
            with torch.cuda.stream(stream):
                coming = {
                    key: value.to(self.target_device, non_blocking=True) if isinstance(value, torch.Tensor) else value
                    for key, value in batch.items()
                }
            if ready is not None:
                yield ready
            torch.cuda.current_stream(self.target_device).wait_stream(stream)
            for value in coming.values():
                if isinstance(value, torch.Tensor):
                    value.record_stream(torch.cuda.current_stream(self.target_device))
            ready = coming
        if ready is not None:
            yield ready


def opens_a_stream(loader: Callable[..., object]) -> bool:
    """Whether a loader opens a CUDA stream when it is made, before anybody reads from it."""
    with mock.patch("torch.cuda.Stream", side_effect=Reached):
        try:
            loader(0, dataset=[0])
        except Reached:
            return True
    return False
