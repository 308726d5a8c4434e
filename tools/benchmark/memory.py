"""Peak memory of a piece of work: device memory on CUDA, resident memory of the process on a CPU."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch


def peak_mib(work: Callable[[], Any], device: str) -> tuple[float | None, Any]:
    """Peak memory of `work` above that before it, in MiB (None where the system does not report it), and its result.

    On a CPU, glibc first returns freed memory to the system. Otherwise work that reuses it would seem to need none.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20, result
    try:
        _return_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the highest resident size
        before = _status_kib("VmRSS")
    except OSError:
        return None, work()
    result = work()
    return max(_status_kib("VmHWM") - before, 0) / 2**10, result


def tensors_mib(tensors: Iterable[torch.Tensor | None]) -> float:
    """MiB of the storages of `tensors`; a storage that several share counts once."""
    sizes = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in tensors
        if tensor is not None
    }
    return sum(sizes.values()) / 2**20


def mib_text(mib: float | None) -> str:
    """Whole MiB for a table; a dash for None."""
    return "-" if mib is None else f"{mib:.0f}"


def _return_freed_memory() -> None:
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _status_kib(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise OSError(f"no {field}")
