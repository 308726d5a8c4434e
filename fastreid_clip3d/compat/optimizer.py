"""fast-reid's optimiser on one flat buffer of parameters: gradients that stay views of it, and torch's fused step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import nn

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
