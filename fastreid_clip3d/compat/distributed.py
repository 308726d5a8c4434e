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
    """torch's wrapper; a model on a CPU has no device ids, which fast-reid's trainer always gives."""
    on_cuda = next(model.parameters()).device.type == "cuda"
    return DistributedDataParallel(model, device_ids=device_ids if on_cuda else None, **kwargs)


def apply() -> None:
    """Puts both where fast-reid looks them up."""
    import fastreid.engine.defaults as defaults
    from fastreid.utils import comm

    comm._serialize_to_tensor = _serialize_to_tensor
    defaults.DistributedDataParallel = _distributed_data_parallel
