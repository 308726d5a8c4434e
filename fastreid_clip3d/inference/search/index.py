"""Vectors of a gallery's pictures on disk; each search updates them for new, changed and removed pictures.

On disk, in ``GALLERY/.fastreid_clip3d/<key>/`` or below a folder of the user's choice::

    listing.npz          the picture of each vector (name, size and time of its files), and the unreadable pictures
    vectors-TOKEN.faiss  the vectors, an exact inner product index; the listing names it
    part-TOKEN.npz       vectors of an interrupted run, which the next run takes over

We write every file whole or not at all, and the listing last: after a kill the old state is there, plus parts.

N: entries. D: width of a vector.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from fastreid_clip3d.common.files import check_writable_folder, write_atomically
from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.pictures import Entry, signature_of

logger = logging.getLogger(__name__)

HIDDEN_FOLDER = ".fastreid_clip3d"
PART_ROWS = 2048
PART_SECONDS = 60.0
_ROWS_AT_ONCE = 16384
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError, MemoryError)
"""What a damaged file raises; faiss allocates what its header says, and that can be more memory than there is."""

Compute = Callable[[Sequence[Entry]], Iterator[tuple[Entry, np.ndarray | UnreadableImage]]]
"""Vectors of entries, in order: float32 [D] each, or the error."""


@dataclass
class Gallery:
    """A gallery that can be searched.

    Attributes:
        entries: the N readable entries; row i of `index` belongs to entry i.
        index: exact inner product index, N rows.
        unreadable: (name, reason) of the others.
        folder: of the index. token: changes with the vectors.
        computed, removed: number of entries that this call computed, and that are no longer in the gallery.
    """

    entries: list[Entry]
    index: faiss.IndexFlat
    unreadable: list[tuple[str, str]]
    folder: Path
    token: str
    computed: int = 0
    removed: int = 0

    @property
    def vectors(self) -> np.ndarray:
        """float32 [N, D], a view of the index; valid as long as this gallery is."""
        return vectors_of(self.index)


def vectors_of(index: faiss.IndexFlat) -> np.ndarray:
    """The rows of an exact index, float32 [N, D], without a copy."""
    if not index.ntotal:
        return np.zeros((0, index.d), dtype=np.float32)
    return faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)


def index_folder(gallery: str | Path, key: str, chosen: str | Path = "") -> Path:
    """The folder of a gallery's vectors of one model and kind.

    Args:
        key: model and kind. chosen: the user's folder for the indices of all galleries; "": inside the gallery.
    """
    if not chosen:
        return Path(gallery) / HIDDEN_FOLDER / key
    place = os.path.abspath(gallery)
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", os.path.basename(place)) or "gallery"
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:12]
    return Path(chosen) / f"{name}-{digest}" / key


def open_gallery(
    gallery: str | Path, entries: Sequence[Entry], folder: Path, dims: int, compute: Compute, rebuild: bool = False
) -> Gallery:
    """The gallery's vectors: from disk for unchanged pictures, newly computed for the others.

    A picture has changed when the size or time of its files differs.

    Args:
        entries: all entries of the gallery. folder: see :func:`index_folder`. rebuild: computes all vectors anew.

    Raises:
        ClearError: the folder cannot be written to.
    """
    keys = [_Key(_relative(entry.name, gallery), _signature(entry, gallery)) for entry in entries]
    stored = _Stored(folder, dims)
    if rebuild:
        stored.forget()
    else:
        stored.load()
    missing = [entry for entry, key in zip(entries, keys) if key not in stored]
    places = dict(zip(entries, keys))
    if missing:
        _check_writable(folder, gallery)
        for entry, outcome in compute(missing):
            stored.add(places[entry], outcome)
        stored.write_part()
    present = set(keys)
    outdated = [key for key in (*stored.rows, *stored.unreadable) if key not in present]
    names = {key.name for key in keys}
    removed = sum(key.name not in names for key in outdated)
    readable = [(entry, key) for entry, key in zip(entries, keys) if key in stored.rows]
    unreadable = [(entry.name, stored.unreadable[key]) for entry, key in zip(entries, keys) if key in stored.unreadable]
    kept = [key for _, key in readable]
    if stored.order != kept or stored.changed or outdated:
        try:
            stored.write(kept, present)
        except ClearError:
            if missing:
                raise
            # A gallery on a read-only disk without new pictures can be searched; we only leave out removed ones.
            logger.warning(f"{folder} cannot be written, so the index still has the pictures removed from {gallery}.")
    return Gallery(
        [entry for entry, _ in readable], stored.index, unreadable, folder, stored.token, len(missing), removed
    )


class _Key(NamedTuple):
    """A picture in one state: its name below the gallery, and the signature of its files."""

    name: str
    signature: str


def _relative(name: str, gallery: str | Path) -> str:
    return os.path.relpath(name, gallery)


def _signature(entry: Entry, gallery: str | Path) -> str:
    return signature_of((_relative(str(frame), gallery), frame) for frame in entry.frames)


def _check_writable(folder: Path, gallery: str | Path) -> None:
    try:
        check_writable_folder(folder)
    except ClearError as error:
        raise ClearError(
            f"The index of {printable(str(gallery))}: {error} Or give it a folder: --index FOLDER."
        ) from error


@dataclass
class _Stored:
    """The content of an index folder."""

    folder: Path
    dims: int
    rows: dict[_Key, np.ndarray | int] = field(default_factory=dict)  # a vector, or its row in `index`
    unreadable: dict[_Key, str] = field(default_factory=dict)
    order: list[_Key] = field(default_factory=list)
    token: str = ""
    changed: bool = False
    pending: list[tuple[_Key, np.ndarray | str]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.index: faiss.IndexFlat = faiss.IndexFlatIP(self.dims)

    def __contains__(self, key: _Key) -> bool:
        return key in self.rows or key in self.unreadable

    def forget(self) -> None:
        """Starts anew; :meth:`write` removes the old files once the new ones are complete."""
        self.changed = True
        for part in self.folder.glob("part-*.npz"):
            part.unlink(missing_ok=True)

    def load(self) -> None:
        """Reads listing, vectors and parts. A damaged file is named in the log, and its vectors are computed again."""
        for _ in range(3):  # another process may be replacing the files at this moment
            try:
                self._load_listing()
                break
            except FileNotFoundError:
                if not (self.folder / "listing.npz").exists():
                    break
                time.sleep(0.1)
            except _DAMAGED as error:
                logger.warning(f"The index in {self.folder} is damaged and is built anew ({error}).")
                self.index, self.token = faiss.IndexFlatIP(self.dims), ""
                self.rows, self.unreadable, self.order, self.changed = {}, {}, [], True
                break
        for path in sorted(self.folder.glob("part-*.npz")):
            try:
                names, vectors, unreadable = _read_keys(path)
                if len(names) and vectors.shape != (len(names), self.dims):
                    raise ValueError(f"vectors of shape {vectors.shape}")
            except FileNotFoundError:
                continue
            except _DAMAGED as error:
                logger.warning(f"{path} is damaged and left out ({error}).")
                continue
            self.rows |= dict(zip(names, vectors))
            self.unreadable.update(unreadable)
            self.changed = True

    def _load_listing(self) -> None:
        keys, payload, unreadable = _read_keys(self.folder / "listing.npz")
        token = _text(payload)
        if not re.fullmatch(r"[0-9a-f]{32}", token):
            raise ValueError("no name of a vectors file")
        path = self.folder / f"vectors-{token}.faiss"
        if not path.exists():
            raise FileNotFoundError(path)
        index = read_index(path)
        if not isinstance(index, faiss.IndexFlat) or (index.ntotal, index.d) != (len(keys), self.dims):
            raise ValueError(f"{path.name} has other vectors than the listing says")
        self.index, self.token, self.order = index, token, keys
        self.rows, self.unreadable = {key: row for row, key in enumerate(keys)}, unreadable

    def add(self, key: _Key, outcome: np.ndarray | UnreadableImage) -> None:
        """Adds a computed vector; writes a part after :data:`PART_ROWS` vectors or :data:`PART_SECONDS`."""
        self.changed = True
        if isinstance(outcome, UnreadableImage):
            self.unreadable[key] = str(outcome)
            self.pending.append((key, str(outcome)))
        else:
            self.rows[key] = vector = np.array(outcome, dtype=np.float32)
            self.pending.append((key, vector))
        if len(self.pending) >= PART_ROWS or time.monotonic() - self.started > PART_SECONDS:
            self.write_part()

    def write_part(self) -> None:
        """Writes the vectors since the last part."""
        if self.pending:
            read = [(key, value) for key, value in self.pending if not isinstance(value, str)]
            vectors = np.stack([value for _, value in read]) if read else np.zeros((0, self.dims), np.float32)
            faults = {key: value for key, value in self.pending if isinstance(value, str)}
            _write_keys(self.folder / f"part-{uuid.uuid4().hex}.npz", [key for key, _ in read], vectors, faults)
        self.pending, self.started = [], time.monotonic()

    def arrange(self, kept: list[_Key]) -> None:
        """Fills `index` with these rows in this order."""
        arranged, old = faiss.IndexFlatIP(self.dims), vectors_of(self.index)
        for start in range(0, len(kept), _ROWS_AT_ONCE):
            rows = [self.rows[key] for key in kept[start : start + _ROWS_AT_ONCE]]
            arranged.add(np.stack([old[row] if isinstance(row, int) else row for row in rows]))
        self.index, self.order, self.token = arranged, kept, uuid.uuid4().hex
        self.rows = {key: row for row, key in enumerate(kept)}

    def write(self, kept: list[_Key], present: set[_Key]) -> None:
        """Writes listing and vectors, and removes the older files."""
        before = [*self.folder.glob("vectors-*.faiss"), *self.folder.glob("part-*.npz")]
        self.arrange(kept)
        faults = {key: message for key, message in self.unreadable.items() if key in present}
        vectors = self.folder / f"vectors-{self.token}.faiss"
        write_index(self.index, vectors)
        _write_keys(self.folder / "listing.npz", kept, _bytes(self.token), faults)
        for path in before:
            path.unlink(missing_ok=True)


def write_index(index: faiss.Index, path: Path) -> None:
    """Writes a faiss index, whole or not at all.

    We open the file ourselves, since faiss refuses names that are not UTF-8.

    Raises:
        ClearError: the file cannot be written.
    """
    writer = faiss.PyCallbackIOWriter  # type: ignore[attr-defined]  # faiss's stubs lack it
    write_atomically(path, lambda stream: faiss.write_index(index, writer(stream.write)))


def read_index(path: Path) -> faiss.Index:
    """Reads what :func:`write_index` wrote; a damaged file is a RuntimeError of faiss."""
    with open(path, "rb") as stream:
        reader = faiss.PyCallbackIOReader  # type: ignore[attr-defined]  # faiss's stubs lack it
        return faiss.read_index(reader(stream.read))


# We store names as bytes: an array of texts would be as wide as its longest, and a file's name need not be UTF-8.


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8)


def _text(array: np.ndarray) -> str:
    return array.tobytes().decode("utf-8", "surrogateescape")


def _join(texts: Iterable[str]) -> np.ndarray:
    return _bytes("".join(text + "\0" for text in texts))


def _split(array: np.ndarray) -> list[str]:
    return _text(array).split("\0")[:-1]


def _write_keys(path: Path, keys: Sequence[_Key], payload: np.ndarray, unreadable: dict[_Key, str]) -> None:
    arrays: dict[str, Any] = {
        "names": _join(key.name for key in keys),
        "signatures": _join(key.signature for key in keys),
        "payload": payload,
        "unreadable_names": _join(key.name for key in unreadable),
        "unreadable_signatures": _join(key.signature for key in unreadable),
        "unreadable_reasons": _join(message.replace("\0", " ") for message in unreadable.values()),
    }
    write_atomically(path, lambda stream: np.savez(stream, **arrays))


def _read_keys(path: Path) -> tuple[list[_Key], np.ndarray, dict[_Key, str]]:
    with np.load(path, allow_pickle=False) as archive:
        keys = _keys(archive["names"], archive["signatures"])
        faults = _keys(archive["unreadable_names"], archive["unreadable_signatures"])
        reasons = _split(archive["unreadable_reasons"])
        if len(reasons) != len(faults):
            raise ValueError("reasons and names differ in number")
        return keys, archive["payload"], dict(zip(faults, reasons))


def _keys(names: np.ndarray, signatures: np.ndarray) -> list[_Key]:
    texts = _split(names), _split(signatures)
    if len(texts[0]) != len(texts[1]):
        raise ValueError("names and signatures differ in number")
    return [_Key(*pair) for pair in zip(*texts)]
