"""Writes pickles as Python 2 did (protocols 0, 1 and 2): byte strings as strings, old module names.

It follows the description of the format for a few types: dict, list, tuple, str, int, float, None, NumPy arrays, and
objects of named classes with a state. The tests get such files without Python 2, chumpy and SMPL's licence.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Instance:
    """An object of a class that need not exist here, with the state it was saved with."""

    module: str
    name: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass
class Call:
    """A function that the file asks to be called: what a hostile pickle is made of."""

    module: str
    name: str
    args: tuple = ()


def dumps(value: Any, protocol: int) -> bytes:
    """The pickle of `value`."""
    body = _write(value, protocol)
    return (b"\x80\x02" if protocol == 2 else b"") + body + b"."


def _global(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _text(data: bytes, protocol: int) -> bytes:
    """A Python 2 string: repr on a line (protocol 0), else its length and bytes."""
    if protocol == 0:
        inside = "".join(chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in data)
        return b"S'" + inside.encode("ascii") + b"'\n"
    if len(data) < 256:
        return b"U" + bytes([len(data)]) + data
    return b"T" + struct.pack("<i", len(data)) + data


def _tuple(parts: list[bytes], protocol: int) -> bytes:
    if protocol == 2 and 1 <= len(parts) <= 3:
        return b"".join(parts) + bytes([0x84 + len(parts)])
    return b"(" + b"".join(parts) + b"t"


def _write(value: Any, protocol: int) -> bytes:
    def write(part: Any) -> bytes:
        return _write(part, protocol)

    if value is None:
        return b"N"
    if isinstance(value, bool):
        return (b"\x88" if value else b"\x89") if protocol == 2 else (b"I01\n" if value else b"I00\n")
    if isinstance(value, int):
        if protocol == 0:
            return b"I%d\n" % value
        return b"J" + struct.pack("<i", value) if value < 2**31 else b"L%dL\n" % value
    if isinstance(value, float):
        return b"F" + repr(value).encode() + b"\n" if protocol == 0 else b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return _text(value.encode("latin1"), protocol)
    if isinstance(value, bytes):
        return _text(value, protocol)
    if isinstance(value, tuple):
        return _tuple([write(part) for part in value], protocol)
    if isinstance(value, list):
        if protocol == 0:
            return b"(l" + b"".join(write(part) + b"a" for part in value)
        return b"](" + b"".join(map(write, value)) + b"e"
    if isinstance(value, dict):
        pairs = [(write(key), write(part)) for key, part in value.items()]
        if protocol == 0:
            return b"(d" + b"".join(key + part + b"s" for key, part in pairs)
        return b"}(" + b"".join(key + part for key, part in pairs) + b"u"
    if isinstance(value, set):
        return _global("__builtin__", "set") + _tuple([write(list(value))], protocol) + b"R"
    if isinstance(value, Call):
        return _global(value.module, value.name) + write(value.args) + b"R"
    if isinstance(value, Instance):
        name = _global(value.module, value.name)
        if protocol == 2:
            made = name + b")\x81"
        else:
            parts = [name, _global("__builtin__", "object"), b"N"]
            made = _global("copy_reg", "_reconstructor") + _tuple(parts, protocol) + b"R"
        return made + write(value.state) + b"b"
    if isinstance(value, np.ndarray):
        start = [_global("numpy", "ndarray"), write((0,)), write("b")]
        made = _global("numpy.core.multiarray", "_reconstruct") + _tuple(start, protocol) + b"R"
        dtype = _global("numpy", "dtype") + write((value.dtype.str[1:], 0, 1)) + b"R"
        order = ">" if value.dtype.str[0] == ">" else "<"
        dtype += write((3, order, None, None, None, -1, -1, 0)) + b"b"
        fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        data = value.tobytes("F" if fortran else "C")
        state = [write(1), write(value.shape), dtype, write(bool(fortran)), write(data)]
        return made + _tuple(state, protocol) + b"b"
    raise TypeError(f"no Python 2 pickle for {type(value)}")
