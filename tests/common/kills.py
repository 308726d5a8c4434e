"""Kills a program at each of its changes to the disk, one after the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from fastreid_clip3d.common.resumable import Journal

MOST = 200


def kill_everywhere(work: Callable[[], object], check_rest: Callable[[int], None], every: int = 1) -> int:
    """Runs `work` in children and kills the n-th of them at its n-th change, until one ends by itself.

    A change is a move (killed before and after it), a flush to disk, a new folder, a removed file, or a line of a
    journal (killed in its middle). After each kill, `check_rest(n)` checks the files that are left.

    Returns:
        The number of kills.
    """
    for number in range(1, MOST * every, every):
        child = os.fork()
        if child == 0:
            try:
                _die_at(number)
                work()
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            return number // every
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"ended at {number} by {status}"
        check_rest(number)
    raise AssertionError("the program never ends")


def _die_at(number: int) -> None:
    count = 0

    def due() -> bool:
        nonlocal count
        count += 1
        return count == number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(function: Callable) -> Callable:
        def run(*arguments, **options):
            if due():
                die()
            result = function(*arguments, **options)
            if due():
                die()
            return result

        return run

    for name in ("replace", "fsync", "mkdir", "unlink", "rmdir"):
        setattr(os, name, dying(getattr(os, name)))
    append = Journal.append

    def append_half(self: Journal, *lines: str) -> None:
        if due():
            self._stream.write("\n".join(lines).encode()[:-2])
            self._stream.flush()
            die()
        append(self, *lines)

    Journal.append = append_half


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
