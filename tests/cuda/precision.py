"""A computation on a device beside the same one on a CPU in float64, in each precision that training knows."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Precision(NamedTuple):
    """How a device computes, and the largest relative difference ``|found - expected| / |expected|`` from float64."""

    tolerance: float
    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None
    tf32: bool = False


PRECISIONS = {
    "float64": Precision(1e-9, torch.float64),
    "float32": Precision(1e-3),
    "float32 with TF32": Precision(1e-2, tf32=True),
    "float16": Precision(3e-2, autocast=torch.float16),
    "bfloat16": Precision(1.5e-1, autocast=torch.bfloat16),
}

Compute = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]


@contextlib.contextmanager
def computing_in(precision: Precision, device: str) -> Iterator[None]:
    """In this block autocast and TF32 are as the precision says."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision.tf32
    try:
        with torch.autocast(device, precision.autocast, enabled=precision.autocast is not None):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def assert_agrees(compute: Compute, module: nn.Module, inputs: Mapping[str, Tensor], device: str, name: str) -> None:
    """Value and gradients, by inputs and weights, of a scalar: on the device as on a CPU in float64.

    Args:
        compute: makes the scalar. Inputs of floating point get gradients. name: one of :data:`PRECISIONS`.
    """
    precision = PRECISIONS[name]
    expected = _value_and_gradients(compute, module, inputs, "cpu", PRECISIONS["float64"])
    found = _value_and_gradients(compute, module, inputs, device, precision)
    assert found.keys() == expected.keys()
    for part, value in expected.items():
        assert relative_difference(found[part], value) <= precision.tolerance, part


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """``|found - expected| / |expected|`` by the norm of all entries; infinite where one of them is not finite."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    assert found.shape == expected.shape
    if not torch.isfinite(found).all():
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp(min=1e-6))


def _value_and_gradients(
    compute: Compute, module: nn.Module, inputs: Mapping[str, Tensor], device: str, precision: Precision
) -> dict[str, Tensor]:
    module = copy.deepcopy(module).to(device, precision.dtype)
    given = {
        name: value.detach().clone().to(device, precision.dtype).requires_grad_()
        if value.is_floating_point()
        else value.to(device)
        for name, value in inputs.items()
    }
    with computing_in(precision, device):
        value = compute(module, given)
    value.backward()
    assert value.device.type == device
    parts = {"value": value}
    parts |= {f"gradient of {name}": given[name].grad for name in given if given[name].requires_grad}
    parts |= {f"gradient of {name}": weight.grad for name, weight in module.named_parameters()}
    return {name: part for name, part in parts.items() if part is not None}
