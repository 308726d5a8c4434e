"""How many threads a computation uses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import threadpoolctl
import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch and NumPy with one thread inside the block, for results that no number of threads changes.

    Sums that are divided among threads may differ in their last bits. Threads that the caller starts inside the block
    use one thread each, too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
