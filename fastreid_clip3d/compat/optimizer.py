"""fast-reid's optimiser on one flat buffer of parameters: aligned, with gradients that stay views of it, and fused."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import nn

ALIGNMENT = 16
"""Bytes: CUDA's kernels read four float32 numbers at a time."""

FUSED_DEVICES = ("cpu", "cuda")
"""Types of devices for which torch has a fused step."""

CPU_ONLY = ("cpu",)
"""The same for Adagrad."""

Build = Callable[..., tuple[Any, Any]]
"""``build_optimizer(cfg, model, contiguous=True)`` -> optimiser, flat parameters."""


def with_gradients_kept(build_optimizer: Build) -> Build:
    """Its optimisers write zeros into gradients, where torch would replace them by None."""

    @functools.wraps(build_optimizer)
    def build(*arguments: Any, **keywords: Any) -> tuple[Any, Any]:
        optimizer, params = build_optimizer(*arguments, **keywords)
        optimizer.zero_grad = functools.partial(optimizer.zero_grad, set_to_none=False)
        return optimizer, params

    return build


def fused(build_optimizer: Build) -> Build:
    """Its optimisers take torch's fused step on the devices that have one.

    A fused step divides by the loss scale of float16 itself and skips a step that overflows, so the host need not ask
    the device whether one did. Clipped gradients must be divided before; there the host still asks.
    """

    @functools.wraps(build_optimizer)
    def build(cfg: Any, *arguments: Any, **keywords: Any) -> tuple[Any, Any]:
        optimizer, params = build_optimizer(cfg, *arguments, **keywords)
        devices = CPU_ONLY if isinstance(optimizer, torch.optim.Adagrad) else FUSED_DEVICES
        for group in optimizer.param_groups:
            if "fused" in group and all(weight.device.type in devices for weight in group["params"]):
                group["fused"] = True
        is_fused = all(group.get("fused") for group in optimizer.param_groups)
        if is_fused and not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
            optimizer._step_supports_amp_scaling = True  # what torch's constructors set for fused=True
        return optimizer, params

    return build


def aligned(contiguous_params: type) -> type:
    """fast-reid's flat buffer, in which each parameter begins at a multiple of :data:`ALIGNMENT` bytes.

    The gaps hold zeros, and so do their gradients.
    """

    class AlignedParams(contiguous_params):
        def _init_buffers(self) -> None:
            super()._init_buffers()
            for number, parameters in enumerate(self._group_dict.values()):
                size = sum(_with_gap(one["params"][0]) for one in parameters)
                self._param_buffer[number] = self._param_buffer[number].new_zeros(size)
                self._grad_buffer[number] = self._grad_buffer[number].new_zeros(size)

        def make_params_contiguous(self) -> None:
            """Makes parameters and gradients views of the buffers, as fast-reid's method of this name does."""
            for weights, gradients, parameters in zip(self._param_buffer, self._grad_buffer, self._group_dict.values()):
                start = 0
                for one in parameters:
                    parameter = one["params"][0]
                    place = slice(start, start + parameter.numel())
                    weights[place] = parameter.data.view(-1)
                    parameter.data = weights[place].view(parameter.data.shape)
                    parameter.grad = gradients[place].view(parameter.data.shape)
                    self.data_pointers.append(parameter.data.data_ptr)
                    self.grad_pointers.append(parameter.grad.data.data_ptr)
                    start += _with_gap(parameter)
                weights.grad = gradients

    return AlignedParams


def _with_gap(parameter: torch.Tensor) -> int:
    """Its entries, and those that the next one must wait for to be aligned."""
    step = max(1, ALIGNMENT // parameter.element_size())
    return -(-parameter.numel() // step) * step


def leaves_parameters_unaligned(contiguous_params: type) -> bool:
    """Whether the parameter behind one of a single number begins where CUDA cannot read it at once."""
    group = {"lr": 0.1, "weight_decay": 0.0, "freeze_status": "normal"}
    single, other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(4))
    contiguous_params([{**group, "params": [single]}, {**group, "params": [other]}])
    return (other.data_ptr() - single.data_ptr()) % ALIGNMENT != 0


def removes_gradients(build_optimizer: Build) -> bool:
    """Whether ``zero_grad()`` of an optimiser that it builds asks torch to set gradients to None."""
    optimizer = _optimizer_of(build_optimizer)
    optimizer.zero_grad()
    return optimizer.set_to_none


def steps_unfused(build_optimizer: Build) -> bool:
    """Whether an optimiser that it builds leaves torch's fused step out, where torch offers one."""
    offered = "fused" in inspect.signature(torch.optim.SGD).parameters
    return offered and not all(group["fused"] for group in _optimizer_of(build_optimizer).param_groups)


class _Recorder:
    """Stands for ``torch.optim.SGD``, whose first use imports torch's compiler and takes a second."""

    def __init__(self, groups: Any, **settings: Any) -> None:
        self.param_groups = [{"fused": None, **settings, **group} for group in groups]
        self._default = inspect.signature(torch.optim.Optimizer.zero_grad).parameters["set_to_none"].default

    def zero_grad(self, set_to_none: bool | None = None) -> None:
        self.set_to_none = self._default if set_to_none is None else set_to_none


def _optimizer_of(build_optimizer: Build) -> Any:
    """What it builds for a network whose initial weights draw no random numbers."""
    from fastreid.config import get_cfg

    cfg = get_cfg()
    cfg.SOLVER.OPT = "SGD"
    with mock.patch("torch.optim.SGD", _Recorder):
        return build_optimizer(cfg, nn.BatchNorm1d(1))[0]
