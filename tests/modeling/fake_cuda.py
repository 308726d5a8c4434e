"""CUDA without a device: torch's fake tensors know shapes, types and devices and compute nothing.

An operation on tensors of two devices raises, as on CUDA. So does every question for a value (``.item()``, ``bool()``,
``nonzero()``), at which a host would wait for its device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)

COPIES = ("aten._to_copy.default", "aten.copy_.default")


@contextlib.contextmanager
def fake_cuda(copies: bool = False) -> Iterator[None]:
    """In this block tensors are fake and may be on CUDA. Unless `copies` are allowed, :class:`NoCopies` is in force.

    Autocast works. A backward pass does not: torch's autograd asks the driver for streams.
    """
    no_amp = mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False)
    has_bfloat16 = mock.patch("torch.cuda.is_bf16_supported", return_value=True)
    with no_amp, has_bfloat16, FakeTensorMode(), contextlib.nullcontext() if copies else NoCopies():
        yield


class NoCopies(TorchDispatchMode):
    """Refuses a copy between CUDA and the CPU: the host would wait for it, in either direction."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if str(function) in COPIES:
            source = args[1] if str(function) == "aten.copy_.default" else args[0]
            if source.device.type != result.device.type:
                raise RuntimeError("a step copies between the device and the host")
        return result


def on_cuda(tensor: Tensor) -> Tensor:
    """A fake tensor of the same shape, strides and type on CUDA; to be called inside :func:`fake_cuda`."""
    return torch.empty_strided(tuple(tensor.shape), tensor.stride(), dtype=tensor.dtype, device=CUDA)


def batch_on_cuda(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """:func:`on_cuda` for each tensor of a batch."""
    return {key: on_cuda(value) for key, value in batch.items()}


def move(module: nn.Module) -> nn.Module:
    """Puts parameters and buffers of a module on the fake device. What else it holds stays, as with ``module.to()``."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(on_cuda(weight), requires_grad=weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = on_cuda(buffer)
    return module
