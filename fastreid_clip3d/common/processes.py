"""Worker processes that end with the program that started them."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator

SECONDS_BETWEEN_LOOKS = 1.0
_PARENT_VARIABLE = "FASTREID_CLIP3D_PARENT"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Makes this worker process end within seconds when its parent has ended, even if the parent was killed.

    Call it once in a process that :mod:`multiprocessing` started. Without it, workers of a killed pool wait for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("end_with_parent: this process was not started by multiprocessing")

    def watch() -> None:
        # On POSIX the parent's number changes at once; elsewhere the pipe that multiprocessing keeps open closes.
        while os.getppid() == parent.pid and parent.is_alive():
            parent.join(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


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

    The package calls it before it imports torch, which takes seconds; :func:`end_with_parent` is called after that.
    """
    parent = os.environ.pop(_PARENT_VARIABLE, "")
    if not parent or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended before this line
        os._exit(1)
