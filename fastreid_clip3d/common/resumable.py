"""Long work that any kill leaves ready to go on: the same command again continues and ends with the same result.

A folder of such work has a header, which says what is made; it is written before anything else. What is done stands
either in records (:class:`Parts`: one small file per part, for several processes) or in one journal (:class:`Journal`:
one line per item, for one process). Both are written after what they speak of, so they never promise too much.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fastreid_clip3d.common.files import is_temporary, write_atomically
from fastreid_clip3d.common.locks import LOCK_NAME
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError


class OtherWork(ClearError):
    """A folder was begun with other settings, or its header is damaged. `reason` says which, in a few words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def begin(folder: Path, header: str, work: Mapping[str, Any], own: Sequence[str] = ()) -> bool:
    """Begins a work in a folder, which is made if it is missing, or finds that an earlier run began it.

    Args:
        folder: where the work goes.
        header: name of the json file that keeps `work`.
        work: what decides the result, as json takes it. More keys in the file are not compared.
        own: names of the work's other files. Without a header they are of no use and are removed.

    Returns:
        Whether an earlier run began the same work.

    Raises:
        OtherWork: the header differs (the differences are named) or cannot be read.
        ClearError: files of somebody else in a folder without header; the folder cannot be written.
    """
    path, shown = folder / header, printable(str(folder))
    wanted = json.loads(json.dumps(work))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        _clear(folder, own, shown)
        write_atomically(path, (json.dumps(work) + "\n").encode())
        return False
    except (OSError, ValueError) as error:
        raise OtherWork(
            f"{printable(str(path))} cannot be read ({error}). Remove it and what was made, or choose a new folder.",
            "their header is damaged",
        ) from error
    stored = {key: found.get(key) for key in wanted} if isinstance(found, dict) else {}
    if stored != wanted:
        changes = "; ".join(differences(stored, wanted))
        raise OtherWork(
            f"{shown} was begun with other settings ({changes}). Choose a new folder, or empty it.", changes
        )
    return True


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """What changed between two values of json, one phrase per key."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
    elif old != new:
        yield f"{name or 'it'} was {old}, now {new}"


def _clear(folder: Path, own: Sequence[str], shown: str) -> None:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ClearError(f"{shown} cannot be used ({error.strerror}). Choose another folder.") from error
    strangers = sorted(name for name in names if name not in (*own, LOCK_NAME) and not is_temporary(name))
    if strangers:
        raise ClearError(f"{shown} has other contents ({printable(strangers[0])}). Choose a new folder, or empty it.")
    for name in own:
        (folder / name).unlink(missing_ok=True)


class Parts:
    """Records of the parts of a work: which files a part made, and their sizes.

    A part is done when its record is of this version and each of its files has the recorded size.

    Args:
        folder: the work's folder.
        records: name of the folder in it that keeps the records.
        version: names what decides the content of all parts.
    """

    def __init__(self, folder: str | Path, records: str, version: str) -> None:
        self.folder, self.records, self.version = Path(folder), Path(folder) / records, version

    def sizes(self, part: str) -> dict[str, int]:
        """The part's files, relative to the folder, with their sizes; empty if it has no usable record."""
        try:
            record = json.loads((self.records / f"{part}.json").read_text(encoding="utf-8"))
            return dict(record["sizes"]) if record["version"] == self.version else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def is_done(self, part: str) -> bool:
        """Whether the part has a record and all its files are whole."""
        sizes = self.sizes(part)
        try:
            return bool(sizes) and all(os.stat(self.folder / name).st_size == size for name, size in sizes.items())
        except OSError:
            return False

    def finish(self, part: str, sizes: Mapping[str, int]) -> None:
        """Records a part as done; call it after all its files are written."""
        record = json.dumps({"version": self.version, "sizes": dict(sizes)}).encode()
        write_atomically(self.records / f"{part}.json", record)


class Journal:
    """A text file with one line per finished item, which a kill can only cut off at its end.

    Lines up to the first that is incomplete or not valid are kept, the rest of the file is removed.

    Args:
        path: the file; it is made if it is missing.
        is_valid: whether a complete line counts.

    Attributes:
        lines: what earlier runs wrote, without line ends.

    Raises:
        ClearError: the file cannot be written.
    """

    def __init__(self, path: Path, is_valid: Callable[[str], bool] = lambda line: True) -> None:
        self.path, self.lines = path, []
        try:
            self._stream: IO[bytes] = open(path, "a+b")  # noqa: SIM115  (close() closes it)
            self._stream.seek(0)
            end = 0
            for line in self._stream:
                text = line.decode("utf-8", "surrogateescape")
                if not text.endswith("\n") or not is_valid(text[:-1]):
                    break
                self.lines.append(text[:-1])
                end += len(line)
            self._stream.truncate(end)
        except OSError as error:
            raise self._not_written(error) from error

    def append(self, *lines: str) -> None:
        """Writes lines, without line ends in them, and hands them to the system."""
        try:
            self._stream.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
            self._stream.flush()
        except OSError as error:
            raise self._not_written(error) from error

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def _not_written(self, error: OSError) -> ClearError:
        return ClearError(
            f"{printable(str(self.path))} cannot be written ({error.strerror or error}). Make sure that there is space "
            "and that you may write there, and run the same command again: it goes on."
        )
