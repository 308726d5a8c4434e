"""Peak memory of a piece of work: device memory on CUDA, resident memory of the process on a CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch


def peak_mib(work: Callable[[], Any], device: str) -> tuple[float | None, Any]:
    """MiB that `work` takes at most above what was taken before it (None where the system does not tell), and its result.

    On a CPU memory that was freed before, but not given back to the system, is given back first (glibc): otherwise work
    that finds room in it would seem to take none.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20, result
    try:
        _give_back_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the highest resident size so far
        before = _status_kib("VmRSS")
    except OSError:
        return None, work()
    result = work()
    return max(_status_kib("VmHWM") - before, 0) / 2**10, result


def tensors_mib(tensors: Iterable[torch.Tensor | None]) -> float:
    """MiB of the storages behind `tensors`, each counted once."""
    sizes = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in tensors
        if tensor is not None
    }
    return sum(sizes.values()) / 2**20


def told(mib: float | None) -> str:
    """For a table: whole MiB, or a dash."""
    return "-" if mib is None else f"{mib:.0f}"


def _give_back_freed_memory() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # another C library
        pass


def _status_kib(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise OSError(f"no {field}")
