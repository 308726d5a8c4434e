"""How fast a step could be: its arithmetic over the measured matrix rate, its bytes over the measured bandwidth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

Interval = tuple[float, float]


def machine_rates(device: str, precision: str) -> dict[str, float]:
    """What the device does at best: ``tflops`` of a large matrix product, ``gb_per_second`` of a large copy.

    The product is of random numbers in the precision of the step, in TF32 where convolutions may use it: they are
    nearly all of a step's arithmetic. The copy counts bytes read and bytes written.
    """
    on_cuda = device.startswith("cuda")
    size = 8192 if on_cuda else 1024
    a, b = (torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        product = _seconds(lambda: a @ b, device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.randn((1 << 28) if on_cuda else (1 << 24), device=device)
    target = torch.empty_like(source)
    copy = _seconds(lambda: target.copy_(source), device)
    return {"tflops": 2 * size**3 / product / 1e12, "gb_per_second": 2 * source.nbytes / copy / 1e9}


def step_work(step: Callable[[], Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The least that a step must do: ``tflop`` (a multiply-add is two) and ``gb`` of memory traffic.

    Counted are matrix products and convolutions; every tensor that the backward pass needs, written once and read once;
    every weight, read in both passes; every gradient, written and read; weight and optimiser state, read and written.
    """
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.compiler.set_stance("force_eager"),  # a compiled graph cannot be counted
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        step()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in weights:
        saved.pop(weight.untyped_storage().data_ptr(), None)
    of_weights = sum(weight.nbytes for weight in weights)
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    of_state = sum(value.nbytes for value in states)
    traffic = 2 * sum(saved.values()) + (2 + 2 + 2) * of_weights + 2 * of_state
    return {"tflop": counter.get_total_flops() / 1e12, "gb": traffic / 1e9}


def floor_milliseconds(work: dict[str, float], rates: dict[str, float]) -> dict[str, float]:
    """``arithmetic`` and ``memory``: the milliseconds that either takes at least; ``floor``: the larger one."""
    arithmetic = 1000 * work["tflop"] / rates["tflops"]
    memory = 1000 * work["gb"] / rates["gb_per_second"]
    return {"arithmetic": arithmetic, "memory": memory, "floor": max(arithmetic, memory)}


def busy_share(step: Callable[[], Any], device: str, steps: int = 3) -> float | None:
    """The share of some steps' time in which the device runs a kernel or a copy; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in trace.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return covered_length(spans) / (max(end for _, end in spans) - min(start for start, _ in spans))


def covered_length(intervals: Iterable[Interval]) -> float:
    """The length that intervals cover together, each point counted once."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def _seconds(work: Callable[[], Any], device: str, repeats: int = 10) -> float:
    """The median time of one repeat, after three to warm up."""
    taken = []
    for repeat in range(repeats + 3):
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        if repeat >= 3:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)
