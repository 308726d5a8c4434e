"""Worker processes that end with the program that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading

SECONDS_BETWEEN_LOOKS = 1.0


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
