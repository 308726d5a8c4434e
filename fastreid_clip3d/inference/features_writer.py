"""Writes the features of a picture collection: row by row into a folder, and at the end into one file.

During the work ``FILE.partial/`` holds ``header.json`` (the model), ``features.bin`` (float32 rows) and ``done.jsonl``
(the entry of each row, and the size and time of its files). After a kill the next run continues there.
N: entries with a feature. d': width of the feature.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastreid_clip3d.common.files import check_writable, write_atomically
from fastreid_clip3d.common.locks import lock_folder
from fastreid_clip3d.common.names import as_utf8, printable
from fastreid_clip3d.common.resumable import Journal, OtherWork, begin
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.pictures import Entry, signature_of

FORMATS = (".npz", ".parquet")
HEADER, ROWS, JOURNAL = "header.json", "features.bin", "done.jsonl"
_SECONDS_BETWEEN_FLUSHES = 2.0
_ROWS_AT_ONCE = 4096


def check_output(path: str | Path) -> Path:
    """Checks, before the work, that features can be written to a path; returns it.

    Raises:
        ClearError: another ending, parquet without pyarrow, a place that cannot be written.
    """
    path = check_writable(path, FORMATS)
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ClearError(f"{path}: parquet needs the package pyarrow; install it, or name a .npz file.") from error
    return path


def signature(entry: Entry) -> str:
    """Digest of the names, sizes and times of an entry's files."""
    return signature_of((str(frame), frame) for frame in entry.frames)


class FeaturesWriter:
    """Collects rows for ``path`` in ``path.partial/`` until :meth:`finish`.

    It takes over the rows of an interrupted run for entries whose files have kept their size and time. Rows of another
    model or another kind of entries it throws away.

    Args:
        path: the .npz or .parquet file.
        fingerprint, feature_dim: of the model.
        tracklets: whether entries are tracklets.

    Attributes:
        started_over: the reason why an earlier run's rows were thrown away, else "".
    """

    def __init__(self, path: Path, fingerprint: str, feature_dim: int, tracklets: bool) -> None:
        self.path, self.feature_dim, self.fingerprint = path, feature_dim, fingerprint
        self.folder = path.with_name(path.name + ".partial")
        self.started_over = ""
        self._rows: dict[str, tuple[str, int]] = {}
        self._before: dict[str, str] = {}  # signatures from before the files were read: they may change meanwhile
        self._opened = contextlib.ExitStack()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._opened.enter_context(lock_folder(self.folder))
            self._begin({"format": 1, "fingerprint": fingerprint, "feature_dim": feature_dim, "tracklets": tracklets})
            self._open()
        except OSError as error:
            raise self._not_written(error) from error

    def _begin(self, work: dict[str, Any]) -> None:
        try:
            begin(self.folder, HEADER, work, own=(ROWS, JOURNAL))
        except OtherWork as other:
            self.started_over = f"they are of another model or of other entries: {other.reason}"
            (self.folder / HEADER).unlink()
            begin(self.folder, HEADER, work, own=(ROWS, JOURNAL))

    def _open(self) -> None:
        """Takes over the lines that have a complete row, and removes an incomplete one."""
        self._features: IO[bytes] = open(self.folder / ROWS, "a+b")  # noqa: SIM115  (stays open until close or finish)
        width = 4 * self.feature_dim
        complete = self._features.seek(0, os.SEEK_END) // width

        def has_row(line: str) -> bool:
            try:
                entry = json.loads(line)
                name, found, row = entry["name"], entry["signature"], int(entry["row"])
            except (ValueError, KeyError, TypeError):
                return False
            if row != self._count or row >= complete:
                return False
            self._rows[name] = (found, row)
            self._count += 1
            return True

        self._count = 0
        self._journal = Journal(self.folder / JOURNAL, has_row)
        self._features.truncate(self._count * width)
        self._pending: list[str] = []
        self._flushed = time.monotonic()

    def is_done(self, entry: Entry) -> bool:
        """Whether an earlier run has this entry's feature and its files are unchanged."""
        found = self._before[entry.name] = signature(entry)
        return self._rows.get(entry.name, ("", 0))[0] == found

    def add(self, entry: Entry, feature: np.ndarray) -> None:
        """Adds a feature, float32 [d'], of an entry for which :meth:`is_done` was called before it was read."""
        found = self._before[entry.name]
        try:
            self._features.write(np.ascontiguousarray(feature, dtype="<f4").tobytes())
        except OSError as error:
            raise self._not_written(error) from error
        self._pending.append(json.dumps({"row": self._count, "name": entry.name, "signature": found}))
        self._rows[entry.name] = (found, self._count)
        self._count += 1
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Writes the rows to disk, and then their lines in the journal."""
        try:
            self._features.flush()
            os.fsync(self._features.fileno())
        except OSError as error:
            raise self._not_written(error) from error
        self._journal.append(*self._pending)
        self._pending.clear()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes all rows to disk, for the next run to take over."""
        self.flush()
        self._features.close()
        self._journal.close()
        self._opened.close()

    def finish(self, entries: Sequence[Entry]) -> int:
        """Writes the rows of those entries that have one, in their order, removes the folder and returns N.

        Without any row it writes no file.
        """
        self.flush()
        named = [(entry.name, self._rows[entry.name][1]) for entry in entries if entry.name in self._rows]
        if named:
            names, rows = [name for name, _ in named], np.array([row for _, row in named])
            shape = (self._count, self.feature_dim)
            stored = np.memmap(self.folder / ROWS, dtype="<f4", mode="r", shape=shape)
            starts = range(0, len(rows), _ROWS_AT_ONCE)
            blocks = (np.asarray(stored[rows[start : start + _ROWS_AT_ONCE]]) for start in starts)
            write = _write_npz if self.path.suffix.lower() == ".npz" else _write_parquet
            write_atomically(self.path, lambda stream: write(stream, names, blocks, self.feature_dim, self.fingerprint))
            del stored
        self._features.close()
        self._journal.close()
        for name in (HEADER, JOURNAL, ROWS):  # without a header the next run removes the other two
            (self.folder / name).unlink()
        self._opened.close()
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return len(named)

    def forget(self, entry: Entry) -> None:
        """Drops the row of an entry that can no longer be read."""
        self._rows.pop(entry.name, None)

    def _not_written(self, error: OSError) -> ClearError:
        return ClearError(
            f"{printable(str(self.folder))} cannot be written ({error.strerror or error}). Free some space or choose "
            "another --output."
        )


def _write_npz(stream: IO[bytes], names: list[str], blocks: Iterator[np.ndarray], width: int, fingerprint: str) -> None:
    """``features`` float32 [N, d'], ``paths`` str [N], ``fingerprint`` str []; never holds all features in memory."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(names), width)}
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                file.write(np.ascontiguousarray(block).tobytes())
        for key, array in (("paths", np.array(names, dtype=np.str_)), ("fingerprint", np.array(fingerprint))):
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _write_parquet(
    stream: IO[bytes], names: list[str], blocks: Iterator[np.ndarray], width: int, fingerprint: str
) -> None:
    """Columns ``path`` and ``feature`` (list of d' float32); the fingerprint stands in the schema's metadata."""
    import pyarrow
    from pyarrow import parquet

    vectors = pyarrow.list_(pyarrow.float32(), width)
    schema = pyarrow.schema([("path", pyarrow.string()), ("feature", vectors)], metadata={"fingerprint": fingerprint})
    done = 0
    with parquet.ParquetWriter(stream, schema) as writer:
        for block in blocks:
            columns: list[Any] = [
                pyarrow.array([as_utf8(name) for name in names[done : done + len(block)]], pyarrow.string()),
                pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.reshape(-1)), width),
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
            done += len(block)
