"""Processes that Linux ends the moment their parent ends; imported before torch, so it imports little itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator

_PARENT_VARIABLE = "FASTREID_CLIP3D_PARENT"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextlib.contextmanager
def children_end_at_once() -> Iterator[None]:
    """Processes that this block starts end on Linux the moment this process ends, once they import this package.

    Use it in the main thread: Linux ends the children of a thread with the thread.
    """
    os.environ[_PARENT_VARIABLE] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[_PARENT_VARIABLE]


def end_at_once_with_parent() -> None:
    """In a process that :func:`children_end_at_once` covers: asks Linux to kill this process when its parent ends.

    The package calls it before it imports torch, which takes seconds, and ``processes.end_with_parent`` after that.
    """
    parent = os.environ.pop(_PARENT_VARIABLE, "")
    if not parent or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended before this line
        os._exit(1)
