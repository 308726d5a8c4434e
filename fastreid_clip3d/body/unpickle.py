"""Reads the arrays of a pickled body model without running anything from the file.

SMPL's own files are Python 2 pickles (protocols 0 to 2) of a dict with NumPy arrays, chumpy arrays and SciPy sparse
matrices. This is a small interpreter of the pickle language in which a class is only a name: every admitted name becomes
an inert :class:`Holder`, every other name ends the reading. No class is imported, no function called, no attribute set,
so there is nothing for a hostile file to reach; and no memory is reserved before the file is known to hold the bytes.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastreid_clip3d.body.archives import MAX_ARRAY_BYTES
from fastreid_clip3d.errors import ClearError

MAX_FILE_BYTES = 2 << 30
"""SMPL's largest pickle has about 350 MB."""

# Exact names only. A package prefix would let any function of that package be called by a file.
ADMITTED: dict[tuple[str, str], str] = {
    ("numpy", "ndarray"): "class",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy.core.numeric", "_frombuffer"): "buffer array",
    ("numpy._core.numeric", "_frombuffer"): "buffer array",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("chumpy.ch", "Ch"): "chumpy array",
    ("chumpy.reordering", "Select"): "chumpy selection",
    ("scipy.sparse.csc", "csc_matrix"): "sparse by column",
    ("scipy.sparse._csc", "csc_matrix"): "sparse by column",
    ("scipy.sparse._csc", "csc_array"): "sparse by column",
    ("scipy.sparse.csr", "csr_matrix"): "sparse by row",
    ("scipy.sparse._csr", "csr_matrix"): "sparse by row",
    ("scipy.sparse._csr", "csr_array"): "sparse by row",
    ("copy_reg", "_reconstructor"): "reconstructor",
    ("copyreg", "_reconstructor"): "reconstructor",
    ("__builtin__", "object"): "class",
    ("builtins", "object"): "class",
    ("__builtin__", "set"): "set",
    ("builtins", "set"): "set",
    ("_codecs", "encode"): "encode",
}


@dataclass
class Holder:
    """What an object of the file was made of. `kind` is a value of :data:`ADMITTED`; the rest is plain data."""

    kind: str
    args: Any = ()
    state: Any = None


@dataclass(frozen=True)
class _Name:
    """A class or function that the file mentions: a label, never the thing."""

    kind: str


class _Bad(Exception):
    """The pickle breaks its own rules or holds something that is not admitted."""


def read_pickle(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays `names` (those present) of the dict pickled in `path`; chumpy and sparse ones as dense arrays.

    Raises:
        ClearError: a class that is not admitted (by its name), a damaged file, no dict, or an array that asks for more
            bytes than the file holds.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ClearError(f"'{path}' has {size:,} bytes, more than the {MAX_FILE_BYTES:,} of any body model.")
    try:
        content = load(path.read_bytes())
        if not isinstance(content, dict):
            raise _Bad(f"wanted a dict of arrays, given {_describe(content)}")
        return {name: _array(content[name], f"field '{name}'") for name in names if name in content}
    except (_Bad, ValueError, OverflowError) as error:  # the latter two: shapes that numpy itself cannot make
        raise ClearError(
            f"'{path}' is not read: {error}. Nothing in it was run. Take an unchanged file from "
            "https://smpl.is.tue.mpg.de, or save its arrays with numpy.savez."
        ) from None


def load(data: bytes) -> Any:
    """The pickled object as plain data and :class:`Holder` objects; text keys are str, byte strings bytes."""
    reader = _Reader(data)
    try:
        return reader.run()
    except _Bad:
        raise
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error, UnicodeError) as error:
        raise _Bad(f"damaged pickle at byte {reader.position:,} ({type(error).__name__}: {error})") from error


_MARK = object()


class _Reader:
    """The pickle machine: a stack, a memo, and one method for each kind of instruction."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            action = _ACTIONS.get(code)
            if action is None:
                raise _Bad(f"instruction {code!r} at byte {self.position - 1:,} is not admitted")
            action(self)

    # -- reading

    def take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise _Bad(
                f"{count:,} bytes wanted at byte {self.position:,}, {len(self.data) - self.position:,} left: "
                "the file is cut short or damaged"
            )
        start, self.position = self.position, end
        return self.data[start:end]

    def number(self, layout: str) -> int | float:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise _Bad("the file is cut short")
        line, self.position = self.data[self.position : end], end + 1
        return line

    # -- stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise _Bad("damaged pickle: a mark where a value should be")
        return value

    def to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise _Bad("damaged pickle: no mark")

    # -- instructions

    def int_line(self) -> None:
        line = self.line()
        self.push(bool(int(line)) if line in (b"00", b"01") else int(line))  # Python 2 writes True as 01

    def string_line(self) -> None:
        line = self.line().strip()
        if len(line) < 2 or line[:1] not in b"\"'" or line[:1] != line[-1:]:
            raise _Bad("damaged pickle: a string without quotes")
        self.push(codecs.escape_decode(line[1:-1])[0])

    def set_items(self, target: Any, items: Sequence[Any]) -> None:
        if not isinstance(target, dict):
            raise _Bad(f"items are set on {_describe(target)}, which is no dict")
        for key, value in zip(items[0::2], items[1::2], strict=True):
            key = key.decode("latin1") if isinstance(key, bytes) else key
            if isinstance(key, (str, int, float)):  # others name nothing that we read
                target[key] = value

    def append(self, target: Any, values: Sequence[Any]) -> None:
        if not isinstance(target, list):
            raise _Bad(f"items are appended to {_describe(target)}, which is no list")
        target.extend(values)

    def name(self, module: bytes | str, name: bytes | str) -> _Name:
        module, name = (part.decode("utf-8") if isinstance(part, bytes) else part for part in (module, name))
        if not isinstance(module, str) or not isinstance(name, str):
            raise _Bad("damaged pickle: a class name that is no text")
        kind = ADMITTED.get((module, name))
        if kind is None:
            raise _Bad(f"it holds '{module}.{name}', which is not among the classes that a body model needs")
        return _Name(kind)

    def make(self, name: Any, args: Any) -> Any:
        """What calling `name` with `args` would have made, as plain data."""
        if not isinstance(name, _Name) or not isinstance(args, (tuple, list)):
            raise _Bad(f"an object is made from {_describe(name)}, which is no admitted class")
        if name.kind == "encode":
            if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ("latin1", b"latin1"):
                raise _Bad("a text is encoded in another way than latin1")
            return args[0].encode("latin1")
        if name.kind == "set":  # kept as a list: nothing of the file is hashed
            return list(args[0]) if args and isinstance(args[0], list) else []
        if name.kind == "reconstructor":
            if not args or not isinstance(args[0], _Name):
                raise _Bad(f"an object is made from {_describe(args[0]) if args else 'nothing'}")
            return Holder(args[0].kind)
        return Holder(name.kind, tuple(args))

    def build(self, state: Any) -> None:
        target = self.stack[-1]
        if not isinstance(target, Holder):
            raise _Bad(f"state is given to {_describe(target)}, which takes none")
        target.state = state

    def instance(self, module: bytes, name: bytes) -> None:
        self.push(self.make(self.name(module, name), self.to_mark()))

    def object_from_mark(self) -> None:
        name, *args = self.to_mark()
        self.push(self.make(name, args))

    def call(self) -> None:
        args = self.pop()
        self.push(self.make(self.pop(), args))

    def call_with_names(self) -> None:
        if self.pop():
            raise _Bad("an object is made with named arguments, which no admitted class takes")
        self.call()

    def dict_from_mark(self) -> None:
        items = self.to_mark()
        made: dict = {}
        self.set_items(made, items)
        self.push(made)

    def set_one(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items(self.stack[-1], (key, value))

    def append_one(self) -> None:
        value = self.pop()
        self.append(self.stack[-1], [value])

    def set_many(self) -> None:
        items = self.to_mark()
        self.set_items(self.stack[-1], items)

    def append_many(self) -> None:
        values = self.to_mark()
        self.append(self.stack[-1], values)

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def global_name(self) -> None:
        module = self.line()
        self.push(self.name(module, self.line()))

    def global_from_stack(self) -> None:
        name = self.pop()
        self.push(self.name(self.pop(), name))

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.push(self.memo[index])

    def refuse(self, what: str) -> None:
        raise _Bad(f"it refers to {what}, which no body model needs")


def _whole(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


_ACTIONS: dict[bytes, Callable[[_Reader], Any]] = {
    # structure
    b"\x80": lambda r: r.take(1),
    b"\x95": lambda r: r.take(8),  # a frame's length; its bytes follow as usual
    b"(": lambda r: r.push(_MARK),
    b"0": lambda r: r.stack.pop(),
    b"1": lambda r: r.to_mark(),
    b"2": lambda r: r.push(r.stack[-1]),
    b"p": lambda r: r.remember(int(r.line())),
    b"q": lambda r: r.remember(r.number("<B")),
    b"r": lambda r: r.remember(r.number("<I")),
    b"\x94": lambda r: r.remember(len(r.memo)),
    b"g": lambda r: r.recall(int(r.line())),
    b"h": lambda r: r.recall(r.number("<B")),
    b"j": lambda r: r.recall(r.number("<I")),
    # constants and numbers
    b"N": lambda r: r.push(None),
    b"\x88": lambda r: r.push(True),
    b"\x89": lambda r: r.push(False),
    b"I": _Reader.int_line,
    b"L": lambda r: r.push(int(r.line().rstrip(b"L"))),
    b"F": lambda r: r.push(float(r.line())),
    b"J": lambda r: r.push(r.number("<i")),
    b"K": lambda r: r.push(r.number("<B")),
    b"M": lambda r: r.push(r.number("<H")),
    b"G": lambda r: r.push(r.number(">d")),
    b"\x8a": lambda r: r.push(_whole(r.take(r.number("<B")))),
    b"\x8b": lambda r: r.push(_whole(r.take(r.number("<i")))),
    # text and bytes
    b"S": _Reader.string_line,
    b"T": lambda r: r.push(r.take(r.number("<i"))),
    b"U": lambda r: r.push(r.take(r.number("<B"))),
    b"V": lambda r: r.push(r.line().decode("raw-unicode-escape")),
    b"X": lambda r: r.push(r.take(r.number("<I")).decode("utf-8", "surrogatepass")),
    b"\x8c": lambda r: r.push(r.take(r.number("<B")).decode("utf-8", "surrogatepass")),
    b"\x8d": lambda r: r.push(r.take(r.number("<Q")).decode("utf-8", "surrogatepass")),
    b"B": lambda r: r.push(r.take(r.number("<I"))),
    b"C": lambda r: r.push(r.take(r.number("<B"))),
    b"\x8e": lambda r: r.push(r.take(r.number("<Q"))),
    b"\x96": lambda r: r.push(r.take(r.number("<Q"))),
    b"\x98": lambda r: None,
    # containers
    b")": lambda r: r.push(()),
    b"t": lambda r: r.push(tuple(r.to_mark())),
    b"\x85": lambda r: r.tuple_of(1),
    b"\x86": lambda r: r.tuple_of(2),
    b"\x87": lambda r: r.tuple_of(3),
    b"]": lambda r: r.push([]),
    b"l": lambda r: r.push(r.to_mark()),
    b"a": _Reader.append_one,
    b"e": _Reader.append_many,
    b"}": lambda r: r.push({}),
    b"d": _Reader.dict_from_mark,
    b"s": _Reader.set_one,
    b"u": _Reader.set_many,
    b"\x8f": lambda r: r.push([]),
    b"\x90": _Reader.append_many,
    b"\x91": lambda r: r.push(r.to_mark()),
    # objects
    b"c": _Reader.global_name,
    b"\x93": _Reader.global_from_stack,
    b"R": _Reader.call,
    b"\x81": _Reader.call,
    b"\x92": _Reader.call_with_names,
    b"i": lambda r: r.instance(r.line(), r.line()),
    b"o": _Reader.object_from_mark,
    b"b": lambda r: r.build(r.pop()),
    b"P": lambda r: r.refuse("an object outside the file"),
    b"Q": lambda r: r.refuse("an object outside the file"),
    b"\x97": lambda r: r.refuse("a buffer outside the file"),
    b"\x82": lambda r: r.refuse("a registered extension"),
    b"\x83": lambda r: r.refuse("a registered extension"),
    b"\x84": lambda r: r.refuse("a registered extension"),
}


# ---- from holders to arrays --------------------------------------------------------------------------------------


def _array(value: Any, what: str, depth: int = 0) -> np.ndarray:
    """The dense array that a holder stands for."""
    if depth > 8:
        raise _Bad(f"{what} is nested too deeply")
    if not isinstance(value, Holder):
        raise _Bad(f"{what}: wanted an array, given {_describe(value)}")
    if value.kind == "array":
        return _from_state(value.state, what)
    if value.kind == "buffer array":
        if len(value.args) != 4:
            raise _Bad(f"{what}: an array without its data")
        data, dtype, shape, order = value.args
        return _from_bytes(data, dtype, shape, order in ("F", b"F"), what)
    state = value.state if isinstance(value.state, dict) else {}
    if value.kind == "chumpy array" and "x" in state:
        return _array(state["x"], what, depth + 1)
    if value.kind == "chumpy selection" and "a" in state and "idxs" in state:
        return _selection(state, what, depth)
    if value.kind in ("sparse by column", "sparse by row"):
        return _dense(state, value.kind == "sparse by column", what, depth)
    raise _Bad(f"{what}: wanted an array, given {_describe(value)} without its data")


def _from_state(state: Any, what: str) -> np.ndarray:
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise _Bad(f"{what}: an array without its data")
    shape, dtype, fortran, data = state[-4:]
    return _from_bytes(data, dtype, shape, bool(fortran), what)


def _from_bytes(data: Any, dtype: Any, shape: Any, fortran: bool, what: str) -> np.ndarray:
    kind = _dtype(dtype, what)
    shape = _shape(shape, what)
    wanted = kind.itemsize
    for size in shape:
        wanted *= size
    if isinstance(data, str) and all(ord(c) < 256 for c in set(data)):
        data = data.encode("latin1")
    if not isinstance(data, bytes):
        raise _Bad(f"{what}: an array whose data are {_describe(data)}")
    if wanted > MAX_ARRAY_BYTES or wanted != len(data):
        raise _Bad(f"{what}: shape {list(shape)} asks for {wanted:,} bytes, the file holds {len(data):,}")
    return np.frombuffer(data, dtype=kind).reshape(shape, order="F" if fortran else "C")


def _dtype(value: Any, what: str) -> np.dtype:
    """Whole and floating-point numbers only: an array of Python objects is never made."""
    name = value.args[0] if isinstance(value, Holder) and value.kind == "dtype" and value.args else None
    name = name.decode("latin1") if isinstance(name, bytes) else name
    match = re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", name) if isinstance(name, str) else None
    if match is None:
        kind = f"type '{name[:20]}'" if isinstance(name, str) else "no known type"
        raise _Bad(f"{what}: an array of {kind}, wanted numbers")
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
    order = order.decode("latin1") if isinstance(order, bytes) else order
    return np.dtype(match[1]).newbyteorder(">" if order == ">" else "<")


def _shape(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > 8 or not all(type(n) is int and n >= 0 for n in value):
        raise _Bad(f"{what}: an array whose shape is no tuple of sizes")
    return value


def _selection(state: dict, what: str, depth: int) -> np.ndarray:
    """chumpy's `Select`: numbered elements of another array, in a shape of their own."""
    source = _array(state["a"], what, depth + 1).ravel()
    chosen = _array(state["idxs"], what, depth + 1)
    if chosen.dtype.kind not in "iu" or chosen.size == 0 or chosen.min() < 0 or chosen.max() >= source.size:
        raise _Bad(f"{what}: a selection of elements that do not exist")
    selected = source[chosen]
    if state.get("preferred_shape") is None:
        return selected
    shape = _shape(state["preferred_shape"], what)
    if int(np.prod(shape, dtype=object)) != selected.size:
        raise _Bad(f"{what}: {selected.size:,} elements do not fill the shape {list(shape)}")
    return selected.reshape(shape)


def _dense(state: dict, by_column: bool, what: str, depth: int) -> np.ndarray:
    """A compressed sparse matrix as a dense one."""
    shape = _shape(state.get("_shape", state.get("shape")), what)
    if len(shape) != 2 or 8 * shape[0] * shape[1] > MAX_ARRAY_BYTES:
        raise _Bad(f"{what}: a sparse matrix of shape {list(shape)}")
    parts = [_array(state.get(name), f"{what}, '{name}'", depth + 1) for name in ("indptr", "indices", "data")]
    pointers, minor, values = parts
    lines, length = (shape[1], shape[0]) if by_column else shape
    fits = (
        all(part.ndim == 1 for part in parts)
        and pointers.dtype.kind in "iu"
        and minor.dtype.kind in "iu"
        and len(pointers) == lines + 1
        and len(minor) == len(values)
        and pointers[0] == 0
        and pointers[-1] == len(minor)
        and (np.diff(pointers.astype(np.int64)) >= 0).all()
        and (len(minor) == 0 or (minor.min() >= 0 and minor.max() < length))
    )
    if not fits:
        raise _Bad(f"{what}: a sparse matrix whose parts do not fit together")
    major = np.repeat(np.arange(lines), np.diff(pointers.astype(np.int64)))
    dense = np.zeros(shape)
    np.add.at(dense, (minor, major) if by_column else (major, minor), values)
    return dense


def _describe(value: Any) -> str:
    if isinstance(value, (Holder, _Name)):
        return f"a {value.kind}"
    return f"a value of type {type(value).__name__}"
