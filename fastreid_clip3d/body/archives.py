"""Reads .npz files that need not be trusted: it checks names, types and sizes before it allocates memory."""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from fastreid_clip3d.errors import ClearError

MAX_ARRAY_BYTES = 512 << 20
"""Largest array that a body model may ask for: about four times SMPL-X's largest."""

MAX_TOTAL_BYTES = 1 << 30
"""Largest sum over the arrays that are read."""

_MAX_HEADER = 10_000
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What numpy writes. zipfile inflates the others without a bound."""

DAMAGES: tuple[type[Exception], ...] = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError,
    tokenize.TokenError, SyntaxError, MemoryError,  # the header of an array is parsed as Python
    KeyError, TypeError,  # an array is not in the file, or the file is a single array
)  # fmt: skip
"""What reading a damaged .npz or .npy raises."""


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays `names` (those present; None: all) of an .npz file. Pickled objects are never read.

    Raises:
        ClearError: not an .npz, damaged, an array of objects among `names`, or one larger than `MAX_ARRAY_BYTES`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = [name for name in (members if names is None else names) if name in members]
            arrays: dict[str, np.ndarray] = {}
            for name in wanted:
                if members[name].compress_type not in _COMPRESSIONS:
                    raise ClearError(
                        f"'{path}', array '{name}' is compressed by another method than numpy's. Save the file again "
                        "with numpy.savez_compressed."
                    )
                with archive.open(members[name]) as stream:
                    arrays[name] = _read_array(stream, members[name].file_size, f"'{path}', array '{name}'")
                if sum(array.nbytes for array in arrays.values()) > MAX_TOTAL_BYTES:
                    raise ClearError(
                        f"'{path}' holds more than the {MAX_TOTAL_BYTES:,} bytes that any body model needs."
                    )
            return arrays
    except DAMAGES as error:
        raise ClearError(f"'{path}' cannot be read as .npz ({error}). Download or copy it again.") from error


def _read_array(stream: IO[bytes], member_bytes: int, what: str) -> np.ndarray:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ClearError(f"{what}: unknown .npy version {version}.")
    # The header's length is checked before the header is read: a compressed one can be a thousand times the file.
    prefix = stream.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(prefix, "little")
    if length > _MAX_HEADER:
        raise ClearError(f"{what}: a header of {length:,} bytes, more than the {_MAX_HEADER:,} of any body model.")
    header = io.BytesIO(prefix + stream.read(length))
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(header, max_header_size=_MAX_HEADER)
    if dtype.hasobject:
        raise ClearError(
            f"{what} holds Python objects, which could run code; only arrays of numbers are read. Save it as numbers "
            "(a sparse matrix with .toarray())."
        )
    count = 1
    for size in shape:
        if size < 0:
            raise ClearError(f"{what}: the header gives a negative size {shape}.")
        count *= size
    wanted = count * dtype.itemsize
    if wanted > MAX_ARRAY_BYTES:
        raise ClearError(
            f"{what}: the header asks for {wanted:,} bytes (shape {list(shape)}), more than the {MAX_ARRAY_BYTES:,} "
            "that any body model needs. The file is damaged or not a body model."
        )
    if wanted > member_bytes:
        raise ClearError(
            f"{what}: the header asks for {wanted:,} bytes, but the file holds {member_bytes:,}. It is cut short."
        )
    data = stream.read(wanted)
    if len(data) != wanted:
        raise ClearError(f"{what}: {wanted:,} bytes wanted, {len(data):,} found. The file is cut short.")
    array = np.frombuffer(data, dtype=dtype)
    return array.reshape(shape, order="F" if fortran else "C")
