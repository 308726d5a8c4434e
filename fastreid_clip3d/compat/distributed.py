"""Several processes: gathering without torch's deprecated typed storages, and data-parallel models on CPUs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def serialize_to_tensor(data: Any, group: dist.ProcessGroup) -> torch.Tensor:
    """The pickled object as uint8 [n], where the group's backend can send it. The signature is fast-reid's."""
    device = torch.device("cpu" if dist.get_backend(group) == "gloo" else "cuda")
    return torch.frombuffer(bytearray(pickle.dumps(data)), dtype=torch.uint8).to(device)


def needs_typed_storages(serialize: Callable[[Any, Any], torch.Tensor]) -> bool:
    """Whether it fails on a torch without ``torch.ByteStorage``."""
    gloo = mock.patch("torch.distributed.get_backend", return_value="gloo")
    with gloo, mock.patch("torch.ByteStorage", None, create=True):
        try:
            serialize(b"", None)
        except AttributeError:
            return True
    return False


def distributed_data_parallel(
    model: nn.Module, device_ids: list[int] | None = None, **keywords: Any
) -> DistributedDataParallel:
    """torch's wrapper; a model on a CPU has no device ids, which fast-reid's trainer always gives.

    ``static_graph``: torch finds out in the first step which parameters take part. Without it a loss whose weight is 0,
    or a student with a part that training does not use, stops the second step with an error.
    """
    on_cuda = next(model.parameters()).device.type == "cuda"
    keywords.setdefault("static_graph", True)
    return DistributedDataParallel(model, device_ids=device_ids if on_cuda else None, **keywords)


def gives_device_ids_on_a_cpu(wrap: Callable[..., Any]) -> bool:
    """Whether torch gets the device ids, which it refuses, of a model on a CPU."""
    with mock.patch.object(DistributedDataParallel, "__init__", return_value=None) as made:
        wrap(nn.BatchNorm1d(1), device_ids=[0], broadcast_buffers=False)
    return bool(made.call_args.kwargs["device_ids"])


def share_buffers(model: nn.Module) -> None:
    """Gives every rank the buffers of rank 0, which are those that a checkpoint holds. All ranks call it.

    Running statistics of batch norm differ from rank to rank, since each rank sees its own images.
    """
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def lost_peer(error: BaseException) -> bool:
    """Whether an exception says that another process of the group is gone."""
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return False
    text = str(error)
    signs = ("Connection closed by peer", "Connection reset by peer", "gloo/transport", "remote process exited")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)
