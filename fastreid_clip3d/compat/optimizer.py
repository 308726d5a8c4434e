"""fast-reid's optimiser works on one flat buffer for all parameters; since torch 2, clearing gradients cuts it off.

The buffer's gradient is a tensor that all parameters' gradients are views of. ``zero_grad()`` of torch 2 sets gradients to
None: backward then fills the views, the optimiser finds None on the buffer, and no weight ever changes, without a word.

Torch's fused step, which fast-reid is too old to ask for, reads every weight once instead of once an operation.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable

import torch

FUSED_DEVICES = ("cpu", "cuda")


def _mended(build_optimizer: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build_optimizer)
    def build(*arguments: Any, **keywords: Any) -> Any:
        optimizer, params = build_optimizer(*arguments, **keywords)
        optimizer.zero_grad = functools.partial(optimizer.zero_grad, set_to_none=False)
        for group in optimizer.param_groups:
            if "fused" in group and all(weight.device.type in FUSED_DEVICES for weight in group["params"]):
                group["fused"] = True
        return optimizer, params

    return build


def apply() -> None:
    """Optimisers that fast-reid builds write zeros into gradients, where torch would replace them by None, and are fused."""
    import fastreid.engine.defaults as defaults
    import fastreid.solver as solver
    import fastreid.solver.build as build

    replaces_by_none = inspect.signature(torch.optim.Optimizer.zero_grad).parameters["set_to_none"].default
    if replaces_by_none and not hasattr(build.build_optimizer, "__wrapped__"):
        build.build_optimizer = _mended(build.build_optimizer)
        solver.build_optimizer = defaults.build_optimizer = build.build_optimizer
