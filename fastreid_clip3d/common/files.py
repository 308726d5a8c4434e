"""Files that are whole or absent, whatever stops the program, and the check that they can be written.

We write a file under a temporary name in its own folder and move it when it is complete. A temporary name holds its
process, so that the next run recognises and removes what a killed run left, and nothing that is still being written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import platform
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError

Content = bytes | Callable[[IO[bytes]], object]
"""What a file holds: its bytes, or a function that writes them to a stream."""

SECONDS_UNTIL_ABANDONED = 86400.0
"""A temporary file of another machine, or of a process whose number is taken again, is removed after this time."""

_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_TEMPORARY = re.compile(r"\..*\.(?P<machine>[0-9a-f]{6})-(?P<process>\d+)-\d+\.partial(\.\w+)?")
_LONGEST_NAME = 180  # bytes; file systems take 255, and the temporary name needs a part of them
_numbers = itertools.count()
_in_use: set[str] = set()
_swept: set[tuple[int, str]] = set()


def write_atomically(path: str | os.PathLike, content: Content, durable: bool = True) -> None:
    """Writes a file that is whole or absent. Missing folders are made.

    Args:
        path: a file, or a device or FIFO (``/dev/stdout``), which is written directly.
        content: the bytes, or a function that writes them to a binary stream.
        durable: whether the bytes reach the disk before the file takes its name, so that a power failure leaves no
            empty file. Turn it off for one of many files whose sizes are checked later.

    Raises:
        ClearError: the file cannot be written.
    """

    def write(stream: IO[bytes]) -> None:
        if callable(content):
            content(stream)
        else:
            stream.write(content)

    if _is_special(path):
        with _clear_errors(path), open(path, "wb") as stream:
            write(stream)
        return
    with replacing(path, durable) as temporary, open(temporary, "wb") as stream:
        write(stream)


@contextlib.contextmanager
def replacing(path: str | os.PathLike, durable: bool = True, keep_ending: bool = False) -> Iterator[Path]:
    """Gives a temporary path for a library that opens its file itself; the file is moved to `path` at the end.

    After any exception the temporary file is gone and what was at `path` is untouched. Missing folders are made.

    Args:
        path, durable: see :func:`write_atomically`.
        keep_ending: the temporary name ends as `path` does, for libraries that choose a format by it.

    Raises:
        ClearError: an OSError inside the block, torch's RuntimeError after one, or the file cannot be moved.
    """
    target = Path(path)
    with _clear_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        key = (os.getpid(), os.path.abspath(target.parent))
        if key not in _swept:
            _swept.add(key)
            remove_leftovers(target.parent)
        temporary = _temporary_name(target, keep_ending)
        _in_use.add(temporary.name)
        try:
            yield temporary
            if durable:
                _flush(temporary)
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            _in_use.discard(temporary.name)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes the temporary files directly in a folder that killed programs left; those in use stay."""
    with contextlib.suppress(OSError), os.scandir(os.fspath(folder)) as entries:
        for entry in entries:
            if is_temporary(entry.name) and _is_abandoned(entry):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def is_temporary(name: str) -> bool:
    """Whether a file's name is one of our temporary names."""
    return _TEMPORARY.fullmatch(name) is not None


def check_writable(path: str | os.PathLike, endings: Sequence[str] = ()) -> Path:
    """Checks, before the work, that a result can be written to a file; returns its path. Makes nothing.

    Args:
        path: the file. A device or FIFO is accepted.
        endings: the endings that are understood (``.json``), in lower case; (): any.

    Raises:
        ClearError: an ending that is not understood, a folder, a folder that cannot be made or written.
    """
    shown = printable(os.fspath(path))
    if not os.fspath(path):
        raise ClearError("The name of the file to write is empty; give one.")
    target = Path(path)
    if endings and target.suffix.lower() not in endings:
        ending = f"ends in {target.suffix}" if target.suffix else "has no ending"
        raise ClearError(f"{shown}: the name {ending}; it can be written as {' or '.join(endings)}. Change the name.")
    with _clear_errors(path):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.stat(target)  # a name that no file can have
        if os.path.isdir(target):
            example = f"{shown.rstrip('/')}/result{target.suffix}"
            raise ClearError(f"{shown} is a folder; name a file, for example {example}.")
        if not _is_special(target):
            _check_folder(target.parent, shown)
    return target


def check_writable_folder(path: str | os.PathLike, source: str = "") -> Path:
    """Checks, before the work, that results can be written into a folder, which may be missing; returns its path.

    Args:
        path: the folder.
        source: the flag or key that named it, for messages.

    Raises:
        ClearError: a file is in its place, or it cannot be made or written.
    """
    if not os.fspath(path):
        raise ClearError(f"{source or 'The name of the folder to write to'} is empty; give one.")
    with _clear_errors(path, source):
        _check_folder(Path(path), f"{source} {printable(os.fspath(path))}".lstrip())
    return Path(path)


def _check_folder(folder: Path, shown: str) -> None:
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not os.path.isdir(existing):
        raise ClearError(f"{shown} cannot be written: {printable(str(existing))} is no folder. Choose another place.")
    with tempfile.TemporaryFile(dir=existing):
        pass


def _is_special(path: str | os.PathLike) -> bool:
    """Whether a path is a device, a FIFO or a socket, which must not be replaced."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def _clear_errors(path: str | os.PathLike, source: str = "") -> Iterator[None]:
    try:
        yield
    except ClearError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, ValueError) and "null" not in str(error):
            raise
        if isinstance(error, RuntimeError) and not isinstance(error.__context__, OSError):
            raise
        # torch.save ends with an error of its own after one of the disk.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        reason = getattr(cause, "strerror", None) or cause
        remedy = "Choose a place where you may write."
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            reason, remedy = "the disk is full", "Free some space and run the same command again."
        shown = f"{source} {printable(os.fspath(path))}".lstrip()
        raise ClearError(f"{shown} cannot be written ({reason}). {remedy}") from error


def _temporary_name(target: Path, keep_ending: bool) -> Path:
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    ending = target.suffix if keep_ending else ""
    return target.with_name(f".{name}.{_MACHINE}-{os.getpid()}-{next(_numbers)}.partial{ending}")


def _flush(path: Path) -> None:
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    found = _TEMPORARY.fullmatch(entry.name)
    if found is None or not entry.is_file(follow_symlinks=False):
        return False
    if time.time() - entry.stat(follow_symlinks=False).st_mtime > SECONDS_UNTIL_ABANDONED:
        return True
    if found["machine"] != _MACHINE:
        return False
    process = int(found["process"])
    return entry.name not in _in_use if process == os.getpid() else not _is_running(process)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
