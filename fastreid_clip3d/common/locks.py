"""A lock on a folder, so that two programs do not write one set at the same time."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # no stub says that a platform lacks it

LOCK_NAME = ".lock"

_held: set[IO[str]] = set()
if hasattr(os, "register_at_fork"):
    # A forked worker must not keep the lock of a parent that was killed.
    os.register_at_fork(after_in_child=lambda: [_held.pop().close() for _ in range(len(_held))])


@contextlib.contextmanager
def lock_folder(folder: str | os.PathLike) -> Iterator[None]:
    """Holds a folder for this program until the block ends. The system releases it if the program is killed.

    Args:
        folder: an existing folder; a file named ``.lock`` appears in it and disappears at the end.

    Raises:
        ClearError: another program, or another thread of this one, holds the folder; the message says who. Or the file
            cannot be written.
    """
    path = Path(folder) / LOCK_NAME
    if fcntl is None:
        _warn_unlocked(folder, "this platform has no file locks")  # type: ignore[unreachable]  # on Windows it is
        yield
        return
    stream = _lock(path)
    _held.add(stream)
    try:
        yield
    finally:
        _held.discard(stream)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        stream.close()


def _lock(path: Path) -> IO[str]:
    """The open and locked file. A file that its last holder removed in between is not the lock any more: try again."""
    while True:
        try:
            stream = path.open("a+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise ClearError(
                f"{printable(str(path))} cannot be written ({error.strerror}). Choose a folder where you may write."
            ) from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read().strip() or "another program"
            stream.close()
            raise ClearError(
                f"{printable(str(path.parent))} is in use: {holder} writes into it. Wait until it has ended, stop it, "
                "or give another folder."
            ) from error
        except OSError as error:
            _warn_unlocked(path.parent, f"its file system has no locks: {error.strerror}")
        if _is_file(stream, path):
            stream.truncate(0)
            command = printable(" ".join(sys.argv))[:200]
            stream.write(f"process {os.getpid()} on {platform.node() or 'this machine'} ({command})")
            stream.flush()
            return stream
        stream.close()


def _is_file(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except OSError:
        return False


def _warn_unlocked(folder: str | os.PathLike, reason: str) -> None:
    logging.getLogger(__name__).warning(
        "%s cannot be locked (%s): make sure that no other program writes into it.",
        printable(os.fspath(folder)),
        reason,
    )
