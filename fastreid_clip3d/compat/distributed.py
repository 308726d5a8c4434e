"""Several processes: gathering without torch's deprecated typed storages, and data-parallel models on CPUs."""

from __future__ import annotations

import pickle
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def _serialize_to_tensor(data: Any, group: dist.ProcessGroup) -> torch.Tensor:
    """The pickled object as uint8 [n], where the group's backend can send it. The signature is fast-reid's."""
    device = torch.device("cpu" if dist.get_backend(group) == "gloo" else "cuda")
    return torch.frombuffer(bytearray(pickle.dumps(data)), dtype=torch.uint8).to(device)


def _distributed_data_parallel(
    model: torch.nn.Module, device_ids: list[int] | None = None, **kwargs: Any
) -> DistributedDataParallel:
    """torch's wrapper; a model on a CPU has no device ids, which fast-reid's trainer always gives.

    ``static_graph``: which parameters take part is found out in the first step. A loss whose weight is 0, or a student
    with a part that training does not use, would otherwise stop the second step with an error.
    """
    on_cuda = next(model.parameters()).device.type == "cuda"
    kwargs.setdefault("static_graph", True)
    return DistributedDataParallel(model, device_ids=device_ids if on_cuda else None, **kwargs)


def share_buffers(model: torch.nn.Module) -> None:
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
    return isinstance(error, torch.distributed.DistError) or any(sign in text for sign in signs)


def apply() -> None:
    """Puts both where fast-reid looks them up."""
    import fastreid.engine.defaults as defaults
    from fastreid.utils import comm

    comm._serialize_to_tensor = _serialize_to_tensor
    defaults.DistributedDataParallel = _distributed_data_parallel
