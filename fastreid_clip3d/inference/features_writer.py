"""Features of a picture collection on disk: written as they come, continued after a kill, in one piece at the end.

While work goes on, ``FILE.partial/`` holds ``features.bin`` (float32 rows) and ``done.jsonl`` (which row is whose, and
the size and time of its files). N: entries with a feature. d': width of the feature.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zipfile
from pathlib import Path
from typing import IO, Any, Iterator, Sequence

import numpy as np

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.pictures import Entry

FORMATS = (".npz", ".parquet")
_SECONDS_BETWEEN_FLUSHES = 2.0
_ROWS_AT_ONCE = 4096


def check_output(path: str | Path) -> Path:
    """The path, if it ends like a format that can be written here.

    Raises:
        ClearError: another ending; parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ClearError(f"{path}: features are written as {' or '.join(FORMATS)}.")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ClearError(f"{path}: parquet needs the package pyarrow; install it, or name a .npz file.") from error
    return path


def signature(entry: Entry) -> str:
    """Digest of the names, sizes and times of an entry's files; of files that are not there, of their absence."""
    digest = hashlib.sha256()
    for frame in entry.frames:
        try:
            status = os.stat(frame)
            told = f"{frame}\0{status.st_size}\0{status.st_mtime_ns}\0"
        except OSError:
            told = f"{frame}\0missing\0"
        digest.update(told.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:24]


class FeaturesWriter:
    """Rows for ``path``, kept in ``path.partial/`` until :meth:`finish`.

    What an earlier, interrupted run left there is taken over for entries whose files have kept their size and time; of
    another model or another kind of entries it is thrown away.

    Args:
        path: the .npz or .parquet to write in the end.
        fingerprint, feature_dim: of the model.
        tracklets: whether entries are tracklets.

    Attributes:
        started_over: why an earlier run's rows were thrown away; "": there were none, or they are used.
    """

    def __init__(self, path: Path, fingerprint: str, feature_dim: int, tracklets: bool) -> None:
        self.path, self.feature_dim, self.fingerprint = path, feature_dim, fingerprint
        self.folder = path.with_name(path.name + ".partial")
        self.header = {"format": 1, "fingerprint": fingerprint, "feature_dim": feature_dim, "tracklets": tracklets}
        self.started_over = ""
        self._rows: dict[str, tuple[str, int]] = {}
        try:
            self._open()
        except OSError as error:
            raise ClearError(f"{self.folder} cannot be written ({error.strerror or error}).") from error

    def _open(self) -> None:
        header = self.folder / "header.json"
        if self.folder.exists():
            try:
                found = json.loads(header.read_text())
            except (OSError, ValueError):
                found = None
            if found != self.header:
                self.started_over = "they are of another model or of other entries" if found else "they are damaged"
                if not _is_ours(self.folder):
                    raise ClearError(f"{self.folder} is in the way: it holds other files. Name another output.")
                shutil.rmtree(self.folder)
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            write_atomically(header, json.dumps(self.header).encode())
        self._read_journal()
        self._features: IO[bytes] = open(self.folder / "features.bin", "r+b")
        self._features.truncate(self._count * self.feature_dim * 4)
        self._features.seek(0, os.SEEK_END)
        self._journal = open(self.folder / "done.jsonl", "a", encoding="utf-8")
        self._pending: list[str] = []
        self._flushed = time.monotonic()

    def _read_journal(self) -> None:
        """Lines whose rows are complete; the rest, which a kill has cut off, is forgotten."""
        features, journal = self.folder / "features.bin", self.folder / "done.jsonl"
        features.touch()
        journal.touch()
        complete = features.stat().st_size // (4 * self.feature_dim)
        kept: list[bytes] = []
        for line in journal.read_bytes().splitlines(keepends=True):
            try:
                told = json.loads(line)
                row = int(told["row"])
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n") or row != len(kept) or row >= complete:
                break
            kept.append(line)
            self._rows[told["name"]] = (told["signature"], row)
        self._count = len(kept)
        write_atomically(journal, lambda stream: stream.writelines(kept))

    def is_done(self, entry: Entry) -> bool:
        """Whether an earlier run has this entry's feature, of the same files."""
        found = self._rows.get(entry.name)
        return found is not None and found[0] == signature(entry)

    def add(self, entry: Entry, feature: np.ndarray) -> None:
        """Keeps a feature, float32 [d']."""
        told = signature(entry)
        try:
            self._features.write(np.ascontiguousarray(feature, dtype="<f4").tobytes())
        except OSError as error:
            raise ClearError(f"{self.folder} cannot be written ({error.strerror or error}).") from error
        self._pending.append(json.dumps({"row": self._count, "name": entry.name, "signature": told}) + "\n")
        self._rows[entry.name] = (told, self._count)
        self._count += 1
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Brings the rows to disk, and then the lines that tell of them."""
        try:
            self._features.flush()
            os.fsync(self._features.fileno())
            self._journal.writelines(self._pending)
            self._journal.flush()
        except OSError as error:
            raise ClearError(f"{self.folder} cannot be written ({error.strerror or error}).") from error
        self._pending.clear()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Keeps what there is for the next run."""
        self.flush()
        self._features.close()
        self._journal.close()

    def finish(self, entries: Sequence[Entry]) -> int:
        """Writes the file with the rows of those entries that have one, in their order; returns N.

        Without any row nothing is written. The partial folder is gone afterwards.
        """
        self.close()
        named = [(entry.name, self._rows[entry.name][1]) for entry in entries if entry.name in self._rows]
        if named:
            names, rows = [name for name, _ in named], np.array([row for _, row in named])
            shape = (self._count, self.feature_dim)
            stored = np.memmap(self.folder / "features.bin", dtype="<f4", mode="r", shape=shape)
            starts = range(0, len(rows), _ROWS_AT_ONCE)
            blocks = (np.asarray(stored[rows[start : start + _ROWS_AT_ONCE]]) for start in starts)
            write = _write_npz if self.path.suffix.lower() == ".npz" else _write_parquet
            write_atomically(self.path, lambda stream: write(stream, names, blocks, self.feature_dim, self.fingerprint))
            del stored
        shutil.rmtree(self.folder)
        return len(named)

    def forget(self, entry: Entry) -> None:
        """Drops the row of an entry that could be read before and no longer can."""
        self._rows.pop(entry.name, None)


def _as_text(name: str) -> str:
    """A path as valid Unicode: bytes of other encodings become replacement characters."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_ours(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {"header.json", "features.bin", "done.jsonl"}


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
                pyarrow.array([_as_text(name) for name in names[done : done + len(block)]], pyarrow.string()),
                pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.reshape(-1)), width),
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
            done += len(block)
