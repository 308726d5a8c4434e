"""Reads the arrays of a pickled body model without running anything from the file.

SMPL's own files are Python 2 pickles (protocols 0 to 2) of a dict with NumPy arrays, chumpy arrays and SciPy sparse
matrices. `pickletools` decodes each instruction; the machine below carries out those that build plain data, and treats
a class as a name only. A subclass of `pickle.Unpickler` would be less safe, because it can change neither how the keys
of a file are hashed (100 bytes of nested tuples take hours, a deep tuple crashes Python) nor how much memory a large
memo index reserves (tens of gigabytes).
"""

from __future__ import annotations

import codecs
import io
import pickletools
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastreid_clip3d.body.archives import MAX_ARRAY_BYTES, MAX_TOTAL_BYTES
from fastreid_clip3d.errors import ClearError

MAX_FILE_BYTES = 2 << 30
"""SMPL's largest pickle has about 350 MB."""

MAX_INSTRUCTIONS = 1_000_000
"""A body model's pickle needs a few thousand; each instruction may reserve up to 200 bytes."""

# Exact names only. A package prefix would admit any function of that package.
ADMITTED: dict[tuple[str, str], str] = {
    (module, name): kind
    for kind, name, modules in (
        ("class", "ndarray", ["numpy"]),
        ("dtype", "dtype", ["numpy"]),
        ("array", "_reconstruct", ["numpy.core.multiarray", "numpy._core.multiarray"]),
        ("buffer array", "_frombuffer", ["numpy.core.numeric", "numpy._core.numeric"]),
        ("scalar", "scalar", ["numpy.core.multiarray", "numpy._core.multiarray"]),
        ("chumpy array", "Ch", ["chumpy.ch"]),
        ("chumpy selection", "Select", ["chumpy.reordering"]),
        ("sparse by column", "csc_matrix", ["scipy.sparse.csc", "scipy.sparse._csc"]),
        ("sparse by column", "csc_array", ["scipy.sparse._csc"]),
        ("sparse by row", "csr_matrix", ["scipy.sparse.csr", "scipy.sparse._csr"]),
        ("sparse by row", "csr_array", ["scipy.sparse._csr"]),
        ("reconstructor", "_reconstructor", ["copy_reg", "copyreg"]),
        ("class", "object", ["__builtin__", "builtins"]),
        ("set", "set", ["__builtin__", "builtins"]),
        ("encoded text", "encode", ["_codecs"]),
    )
    for module in modules
}


@dataclass
class Holder:
    """An object of the file as plain data. `kind` is a value of :data:`ADMITTED`; nothing of its class is imported."""

    kind: str
    args: tuple = ()
    state: Any = None


@dataclass(frozen=True)
class _Name:
    """A class or function that the file mentions."""

    kind: str


class _Bad(Exception):
    """The pickle breaks its own rules or holds something that is not admitted."""


def read_pickle(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays `names` (those present) of the dict pickled in `path`: chumpy and sparse ones dense, texts as arrays.

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
        arrays: dict[str, np.ndarray] = {}
        for name in names:
            if content.get(name) is not None:
                text = _short_text(content[name])
                arrays[name] = _array(content[name], f"field '{name}'") if text is None else np.array(text)
            if sum(array.nbytes for array in arrays.values()) > MAX_TOTAL_BYTES:
                raise _Bad(f"its arrays have more than the {MAX_TOTAL_BYTES:,} bytes that any body model needs")
        return arrays
    except (_Bad, ValueError, OverflowError) as error:  # the latter two: shapes that numpy itself cannot make
        raise ClearError(
            f"'{path}' is not read: {error}. Nothing in it was run. Take an unchanged file from "
            "https://smpl.is.tue.mpg.de, or save its arrays with numpy.savez."
        ) from None


def load(data: bytes) -> Any:
    """The pickled object as plain data and :class:`Holder` objects; Python 2 strings are bytes, keys of dicts str."""
    stream = io.BytesIO(data)
    machine = _Machine()
    for _ in range(MAX_INSTRUCTIONS):
        start = stream.tell()
        try:
            opcode = _OPCODES[stream.read(1).decode("latin1")]
            read = _READERS.get(opcode.name) or (opcode.arg.reader if opcode.arg else None)
            argument = read(stream) if read else None
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.execute(opcode.name, argument)
        except (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error) as error:
            reason = f"{type(error).__name__}: {error}"[:120]
            raise _Bad(f"damaged or cut short at byte {start:,} of {len(data):,} ({reason})") from error
    raise _Bad(f"more than {MAX_INSTRUCTIONS:,} instructions, which no body model needs")


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
# pickletools decodes Python 2's strings as ASCII or Latin-1; the arrays in them are bytes.
_READERS = {
    "STRING": lambda stream: codecs.escape_decode(pickletools.read_stringnl(stream, decode=False))[0],
    "BINSTRING": pickletools.read_bytes4,
    "SHORT_BINSTRING": pickletools.read_bytes1,
}
_VALUES = re.compile(
    "INT|FLOAT|LONG[14]?|BININT[12]?|BINFLOAT|STRING|(SHORT_)?BINSTRING|UNICODE|(SHORT_)?BINUNICODE|BINUNICODE8|"
    "(SHORT_)?BINBYTES|BINBYTES8|BYTEARRAY8"
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Machine:
    """The pickle machine: a stack, the stacks below each mark, and a memo. It copies no value that it holds already."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def take(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def to_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def execute(self, name: str, argument: Any) -> None:
        if _VALUES.fullmatch(name):
            return self.stack.append(argument)
        if name in _CONSTANTS:
            return self.stack.append(_CONSTANTS[name])
        match name:
            case "PROTO" | "FRAME" | "READONLY_BUFFER":
                pass
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "POP" if self.stack:
                self.stack.pop()
            case "POP" | "POP_MARK":
                self.to_mark()
            case "DUP":
                self.stack.append(self.stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self.take(int(name[-1]))))
            case "TUPLE":
                values = self.to_mark()
                self.stack.append(tuple(values))
            case "LIST" | "FROZENSET":  # a set stays a list: nothing of the file is hashed
                values = self.to_mark()
                self.stack.append(values)
            case "EMPTY_LIST" | "EMPTY_SET":
                self.stack.append([])
            case "EMPTY_DICT":
                self.stack.append({})
            case "APPEND" | "APPENDS" | "ADDITEMS":
                values = self.take(1) if name == "APPEND" else self.to_mark()
                if not isinstance(self.stack[-1], list):
                    raise _Bad(f"items are appended to {_describe(self.stack[-1])}, which is no list")
                self.stack[-1].extend(values)
            case "DICT" | "SETITEM" | "SETITEMS":
                values = self.take(2) if name == "SETITEM" else self.to_mark()
                if name == "DICT":
                    self.stack.append({})
                _set_items(self.stack[-1], values)
            case "GLOBAL":
                self.stack.append(_name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                self.stack.append(_name(*self.take(2)))
            case "INST":
                values = self.to_mark()
                self.stack.append(_make(_name(*argument.split(" ", 1)), tuple(values)))
            case "OBJ":
                kind, *values = self.to_mark()
                self.stack.append(_make(kind, tuple(values)))
            case "REDUCE" | "NEWOBJ":
                self.stack.append(_make(*self.take(2)))
            case "BUILD":
                state = self.stack.pop()
                if not isinstance(self.stack[-1], Holder):
                    raise _Bad(f"state is given to {_describe(self.stack[-1])}, which takes none")
                self.stack[-1].state = state
            case _:  # objects and buffers outside the file, registered extensions, named arguments
                raise _Bad(f"it uses the instruction {name}, which no body model needs")


def _set_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict):
        raise _Bad(f"items are set on {_describe(target)}, which is no dict")
    for key, value in zip(items[0::2], items[1::2], strict=True):
        text = _short_text(key)
        if text is not None:  # other keys name nothing that is read
            target[text] = value


def _name(module: Any, name: Any) -> _Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise _Bad("damaged: a class name that is no text")
    kind = ADMITTED.get((module, name))
    if kind is None:
        raise _Bad(f"it holds '{module[:80]}.{name[:80]}', which is not among the classes that a body model needs")
    return _Name(kind)


def _make(name: Any, args: Any) -> Holder:
    """What calling `name` with `args` would have made, as plain data."""
    if not isinstance(name, _Name) or not isinstance(args, tuple):
        raise _Bad(f"an object is made from {_describe(name)}, which is no admitted class")
    if name.kind != "reconstructor":
        return Holder(name.kind, args)
    if not args or not isinstance(args[0], _Name):
        raise _Bad(f"an object is made from {_describe(args[0]) if args else 'nothing'}")
    return Holder(args[0].kind)


def _short_text(value: Any) -> str | None:
    """A text of at most 100 characters as str; None for anything else."""
    if not isinstance(value, (str, bytes)) or len(value) > 100:
        return None
    return value.decode("latin1") if isinstance(value, bytes) else value


def _describe(value: Any) -> str:
    holder = isinstance(value, (Holder, _Name))
    return f"an object of kind '{value.kind}'" if holder else f"a value of type {type(value).__name__}"


def _array(value: Any, what: str, depth: int = 0) -> np.ndarray:
    """The dense array that a holder stands for."""
    if depth > 8:
        raise _Bad(f"{what} is nested too deeply")
    if not isinstance(value, Holder):
        raise _Bad(f"{what}: wanted an array, given {_describe(value)}")
    state = value.state if isinstance(value.state, dict) else {}
    if value.kind == "chumpy array" and "x" in state:
        return _array(state["x"], what, depth + 1)
    if value.kind == "chumpy selection" and "a" in state and "idxs" in state:
        return _selection(_array(state["a"], what, depth + 1), state, what)
    if value.kind in ("sparse by column", "sparse by row"):
        return _dense(state, value.kind == "sparse by column", what)
    return _plain(value, what)


def _plain(value: Any, what: str) -> np.ndarray:
    """A NumPy array of numbers whose shape agrees with the bytes that the file holds for it."""
    match value:
        case Holder("array", state=tuple((shape, dtype, fortran, data) | (_, shape, dtype, fortran, data))):
            pass
        case Holder("buffer array", args=(data, dtype, shape, order)):
            fortran = order in ("F", b"F")
        case _:
            raise _Bad(f"{what}: wanted an array with its data, given {_describe(value)}")
    match data:
        case Holder("encoded text", args=(str() as text, "latin1" | b"latin1")) | (str() as text):
            data = text.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise _Bad(f"{what}: an array whose data are {_describe(data)}")
    kind, shape = _dtype(dtype, what), _shape(shape, what)
    wanted = _count(shape) * kind.itemsize
    if wanted > MAX_ARRAY_BYTES or wanted != len(data):
        raise _Bad(f"{what}: shape {list(shape)} asks for {wanted:,} bytes, the file holds {len(data):,}")
    return np.frombuffer(data, dtype=kind).reshape(shape, order="F" if fortran else "C")


def _dtype(value: Any, what: str) -> np.dtype:
    """Whole and floating-point numbers only: an array of Python objects is never made."""
    match value:
        case Holder("dtype", args=(code, *_), state=state):
            match = re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", _short_text(code) or "")
            if match is None:
                raise _Bad(f"{what}: an array of type {_short_text(code)!r}, wanted numbers")
            big = isinstance(state, tuple) and state[1:2] in ((">",), (b">",))
            return np.dtype(match[1]).newbyteorder(">" if big else "<")
    raise _Bad(f"{what}: an array of no known type")


def _shape(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > 8 or not all(type(n) is int and 0 <= n < 1 << 63 for n in value):
        raise _Bad(f"{what}: an array whose shape is no tuple of sizes")
    return value


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=object))


def _selection(array: np.ndarray, state: dict, what: str) -> np.ndarray:
    """chumpy's `Select`: numbered elements of another array, in a shape of their own."""
    chosen = _plain(state["idxs"], what)
    if chosen.dtype.kind not in "iu" or chosen.size == 0 or chosen.min() < 0 or chosen.max() >= array.size:
        raise _Bad(f"{what}: a selection of elements that do not exist")
    shape = chosen.shape if state.get("preferred_shape") is None else _shape(state["preferred_shape"], what)
    if _count(shape) != chosen.size or chosen.size * array.itemsize > MAX_ARRAY_BYTES:
        raise _Bad(f"{what}: {chosen.size:,} elements do not fill the shape {list(shape)}, or are too many")
    return array.ravel()[chosen].reshape(shape)


def _dense(state: dict, by_column: bool, what: str) -> np.ndarray:
    """A compressed sparse matrix as a dense one."""
    shape = _shape(state.get("_shape", state.get("shape")), what)
    if len(shape) != 2 or 8 * _count(shape) > MAX_ARRAY_BYTES:
        raise _Bad(f"{what}: a sparse matrix of shape {list(shape)}")
    pointers, minor, values = (_plain(state.get(name), f"{what}, '{name}'") for name in ("indptr", "indices", "data"))
    lines, length = shape[::-1] if by_column else shape
    fits = (
        all(part.ndim == 1 for part in (pointers, minor, values))
        and pointers.dtype.kind in "iu"
        and minor.dtype.kind in "iu"
        and len(pointers) == lines + 1
        and pointers[0] == 0
        and pointers[-1] == len(minor) == len(values)
        and (pointers[1:] >= pointers[:-1]).all()
        and (len(minor) == 0 or (minor.min() >= 0 and minor.max() < length))
    )
    if not fits:
        raise _Bad(f"{what}: a sparse matrix whose parts do not fit together")
    major = np.repeat(np.arange(lines), (pointers[1:] - pointers[:-1]).astype(np.int64))
    dense = np.zeros(shape)
    np.add.at(dense, (minor, major) if by_column else (major, minor), values)
    return dense
