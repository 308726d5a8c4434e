"""Reads .npz files that need not be trusted: names, types and sizes are looked at before anything is allocated."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastreid_clip3d.errors import ClearError

MAX_ARRAY_BYTES = 1 << 30
"""Largest array that a body model may ask for: about eight times SMPL-X's largest."""

_MAX_HEADER = 10_000


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays `names` (those present; None: all) of an .npz file. Pickled objects are never read.

    Raises:
        ClearError: not an .npz, damaged, an array of objects among `names`, or one larger than `MAX_ARRAY_BYTES`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = [name for name in (members if names is None else names) if name in members]
            arrays = {}
            for name in wanted:
                with archive.open(members[name]) as stream:
                    arrays[name] = _read_array(stream, members[name].file_size, f"'{path}', array '{name}'")
            return arrays
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise ClearError(f"'{path}' cannot be read as .npz ({error}). Download or copy it again.") from error


def _read_array(stream: BinaryIO, member_bytes: int, what: str) -> np.ndarray:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_HEADER)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream, max_header_size=_MAX_HEADER)
    else:
        raise ClearError(f"{what}: unknown .npy version {version}.")
    if dtype.hasobject:
        raise ClearError(
            f"{what} holds Python objects, which could run code; only arrays of numbers are read. Save it as numbers "
            "(a sparse matrix with .toarray())."
        )
    count = 1
    for size in shape:
        if size < 0:
            raise ClearError(f"{what}: the header tells a negative size {shape}.")
        count *= size
    wanted = count * dtype.itemsize
    if wanted > MAX_ARRAY_BYTES:
        raise ClearError(
            f"{what}: the header asks for {wanted:,} bytes (shape {list(shape)}), more than the {MAX_ARRAY_BYTES:,} that "
            "any body model needs. The file is damaged or not a body model."
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
