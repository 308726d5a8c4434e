"""fast-reid's gather functions serialise through torch's typed storages, which torch has deprecated and warns about."""

from __future__ import annotations

import pickle
from typing import Any

import torch
import torch.distributed as dist


def _serialize_to_tensor(data: Any, group: dist.ProcessGroup) -> torch.Tensor:
    """The pickled object as uint8 [n], where the group's backend can send it. The signature is fast-reid's."""
    device = torch.device("cpu" if dist.get_backend(group) == "gloo" else "cuda")
    return torch.frombuffer(bytearray(pickle.dumps(data)), dtype=torch.uint8).to(device)


def apply() -> None:
    from fastreid.utils import comm

    comm._serialize_to_tensor = _serialize_to_tensor
