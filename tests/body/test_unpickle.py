"""Pickled and npz body models: every official form is read, nothing hostile is."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import struct
import sys
import time
import tracemalloc
import types
import zipfile

import numpy as np
import pytest
import scipy.sparse

from fastreid_clip3d.body.archives import read_npz
from fastreid_clip3d.body.unpickle import ADMITTED, read_pickle
from fastreid_clip3d.errors import ClearError
from tests.body.files import chumpy, official, smpl_fields
from tests.references.python2_pickle import Call, Instance, dumps

NAMES = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f", "kintree_table")


def read(tmp_path, data: bytes, names=NAMES) -> dict[str, np.ndarray]:
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    return read_pickle(path, names)


def refusal(tmp_path, data: bytes) -> str:
    with pytest.raises(ClearError) as caught:
        read(tmp_path, data)
    return str(caught.value)


class _StandIn:
    """chumpy's classes for Python's own unpickler, which serves as the oracle."""

    def __setstate__(self, state):
        self.state = state


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_python_2_pickle_of_an_official_file(tmp_path, protocol, monkeypatch):
    fields = smpl_fields()
    data = dumps(official(fields), protocol)
    found = read(tmp_path, data)
    assert set(found) == set(NAMES)
    for name in NAMES:
        assert found[name].shape == fields[name].shape
        np.testing.assert_array_equal(found[name], fields[name], err_msg=name)
    # The writer is honest: Python's own unpickler reads the same arrays from the same bytes.
    for module, name in (("chumpy", None), ("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        fake = types.ModuleType(module)
        if name:
            setattr(fake, name, _StandIn)
        monkeypatch.setitem(sys.modules, module, fake)
    oracle = pickle.loads(data, encoding="latin1")
    np.testing.assert_array_equal(oracle["v_template"].state["x"], fields["v_template"])
    np.testing.assert_array_equal(oracle["J_regressor"].toarray(), fields["J_regressor"])
    np.testing.assert_array_equal(oracle["weights"], fields["weights"])
    assert oracle["pose_training_info"] == {"gender": "f", "nested": [1, 2.5, None, True]}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("layout", ["csc_matrix", "csr_matrix", "csc_array", "csr_array"])
def test_pickles_of_todays_numpy_and_scipy(tmp_path, protocol, layout):
    fields = smpl_fields()
    saved = dict(fields, J_regressor=getattr(scipy.sparse, layout)(fields["J_regressor"]))
    saved["weights"] = np.asfortranarray(fields["weights"])
    saved["f"] = fields["f"].astype(">u4")
    found = read(tmp_path, pickle.dumps(saved, protocol=protocol))
    for name in NAMES:
        np.testing.assert_array_equal(found[name], fields[name], err_msg=name)


class _Touch:
    """Writes a file when it is unpickled by a careless reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_of_a_hostile_pickle_runs(tmp_path):
    trap = tmp_path / "written"
    data = pickle.dumps({"v_template": _Touch(trap)})
    pickle.loads(data)["v_template"].close()
    assert trap.exists(), "the trap works"
    trap.unlink()
    message = refusal(tmp_path, data)
    assert "io.open" in message and "not among the classes" in message and "model.pkl" in message
    assert not trap.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("posix", "system"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy.f2py.diagnose", "run_command"),
        ("numpy.testing._private.utils", "runstring"),
        ("scipy.sparse", "load_npz"),
        ("scipy.sparse.csc", "csc_matrix.__init__"),
        ("chumpy.ch", "ChLambda"),
        ("chumpy.reordering", "transpose"),
        ("fastreid_clip3d.body.unpickle", "Holder"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "OrderedDict"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2])
def test_every_other_name_is_refused_by_its_name(tmp_path, module, name, protocol):
    assert (module, name) not in ADMITTED
    data = dumps({"v_template": Call(module, name, ("x",))}, protocol)
    assert f"'{module}.{name}'" in refusal(tmp_path, data)
    by_stack = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name)) + b"\x93)R."
    assert f"'{module}.{name}'" in refusal(tmp_path, by_stack)
    by_instance = b"(i" + module.encode() + b"\n" + name.encode() + b"\n."
    assert f"'{module}.{name}'" in refusal(tmp_path, by_instance)


def test_admitted_names_are_exact_pairs_and_never_imported(tmp_path):
    assert all(isinstance(module, str) and isinstance(name, str) for module, name in ADMITTED)
    assert not any(character in part for pair in ADMITTED for part in pair for character in "*?")
    before = set(sys.modules)
    read(tmp_path, dumps(official(smpl_fields()), 2))
    assert not any(name.startswith("chumpy") for name in set(sys.modules) - before)


def test_state_cannot_change_a_class(tmp_path):
    # BUILD on a class: Python's own unpickler sets the class's attributes from the second half of the state.
    attack = b"cscipy.sparse.csc\ncsc_matrix\n(N}S'toarray'\nS'x'\nstb."
    before = scipy.sparse.csc_matrix.toarray
    assert "state is given to" in refusal(tmp_path, attack)
    assert scipy.sparse.csc_matrix.toarray is before
    # ... and state on an admitted object is kept aside as data, whatever its keys are called.
    hostile = Instance("chumpy.ch", "Ch", {"__class__": "x", "__reduce__": "x", "__setstate__": "x", "x": np.eye(2)})
    np.testing.assert_array_equal(read(tmp_path, dumps({"f": hostile}, 2))["f"], np.eye(2))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]S'a'\nS'b'\ns.",  # an item set on a list
        b"\x80\x02}K\x01a.",  # appended to a dict
        b"(dK\x01b.",  # state given to a dict
        b"S'os'\nS'system'\nR.",  # a call of a text
        b"\x82\x01.",  # a registered extension
        b"Pid\n.",  # a persistent object
        b"\x80\x05\x97.",  # an out-of-band buffer
        b"\xff.",  # no instruction
        b"",
        b".",
        b"t.",
        b"(t",
        b"h\x00.",
        b"I" + b"9" * 10_000 + b"\n.",
        b"S'unclosed\n.",
        b"not a pickle at all\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    ],
)
def test_damaged_or_strange_pickles_are_a_message(tmp_path, data):
    message = refusal(tmp_path, data)
    assert "model.pkl" in message and "Nothing in it was run" in message


@pytest.mark.parametrize(
    "data, wanted",
    [
        (b"cnumpy\nndarray\n)}\x92", "it uses the instruction NEWOBJ_EX"),
        (b"cnumpy\nndarray\n]R", "an object is made from"),  # arguments that are a list would be copied
        (b"cnumpy\nndarray\nNR", "an object is made from"),
        (b"N)\x81", "an object is made from a value of type NoneType"),
        (b"(S'builtins'\nS'eval'\no", "an object is made from a value of type bytes"),
        (b"ccopyreg\n_reconstructor\n)R", "an object is made from nothing"),
        (b"cchumpy.ch\nCh\n)\x81)\x81", "an object is made from an object of kind 'chumpy array'"),
        (b"cchumpy.ch\nCh\n)\x81S'x'\nNs", "items are set on an object of kind 'chumpy array'"),
        (b"cchumpy.ch\nCh\n)\x81Na", "items are appended to an object of kind 'chumpy array'"),
        (b"cchumpy.ch\nCh\n(NK\x01K\x02sb", "items are set on a value of type NoneType"),
        (b"]}b", "state is given to a value of type list"),
        (b"\x82\x01", "it uses the instruction EXT1"),
        (b"Pid\n", "it uses the instruction PERSID"),
        (b"S'id'\nQ", "it uses the instruction BINPERSID"),
        (b"\x97", "it uses the instruction NEXT_BUFFER"),
    ],
)
def test_instructions_on_the_wrong_things_are_refused(tmp_path, data, wanted):
    assert wanted in refusal(tmp_path, data + b"0}.")  # what follows is a good pickle: only `data` is at fault


def test_truncation_anywhere_is_a_message(tmp_path):
    data = dumps(official(smpl_fields(vertices=8)), 2)
    for end in np.linspace(0, len(data) - 1, 60).astype(int):
        assert "model.pkl" in refusal(tmp_path, data[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"\x8e" + struct.pack("<Q", 1 << 42) + b"x.",  # bytes of 4 TB
        b"\x96" + struct.pack("<Q", 1 << 42) + b"x.",
        b"\x8d" + struct.pack("<Q", (1 << 64) - 1) + b"x.",
        b"T" + struct.pack("<i", -1) + b"x.",
        b"T" + struct.pack("<i", (1 << 31) - 1) + b"x.",
        b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.",
    ],
)
def test_lengths_beyond_the_file_are_a_message(tmp_path, data):
    assert "cut short" in refusal(tmp_path, data)


def test_a_memo_index_of_billions_costs_nothing(tmp_path):
    # Python's own unpickler keeps a list up to the largest index: tens of gigabytes for this.
    data = b"N" + b"r" + struct.pack("<I", (1 << 32) - 1) + b"0."
    assert "damaged" in refusal(tmp_path, data)


@pytest.mark.parametrize("key", [b")" + b"2\x86" * 100, b")" + b"\x85" * 900_000])
def test_keys_of_nested_tuples_are_not_hashed(tmp_path, key):
    """Python's own unpickler hashes the first key for longer than the universe is old, and crashes on the second."""
    data = b"}" + key + b"Ns."
    child = os.fork()  # a child can be stopped, and its crash ends no test run
    if child == 0:
        try:
            os._exit(0 if read(tmp_path, data, ["f"]) == {} else 1)
        finally:
            os._exit(2)
    status, deadline = (0, 0), time.monotonic() + 60
    while status == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
        status = os.waitpid(child, os.WNOHANG)
    if status == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert status == (child, 0), "it hangs, crashes or reads something else"


ONE_MEGABYTE = b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20)


@pytest.mark.parametrize(
    "repeated",
    [
        b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR",
        b"cnumpy\nndarray\nh\x00R",
        b"cnumpy\nndarray\nh\x01R",
        b"c__builtin__\nset\n(h\x01tR",
    ],
)
def test_values_that_the_file_refers_to_often_are_not_copied(tmp_path, repeated):
    """A file of one megabyte may not take a gigabyte: 1,000 times a text of a million letters or a list of 100,000."""
    data = ONE_MEGABYTE + b"q\x000(" + b"N" * 100_000 + b"lq\x010(" + 1_000 * repeated + b"l."
    tracemalloc.start()
    try:
        with contextlib.suppress(ClearError):
            read(tmp_path, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_number_of_instructions_is_bounded(tmp_path, monkeypatch):
    good = dumps({"f": np.eye(2)}, 2)
    monkeypatch.setattr("fastreid_clip3d.body.unpickle.MAX_INSTRUCTIONS", 1_000)
    assert "more than 1,000 instructions" in refusal(tmp_path, b"]0" * 600 + good[2:])
    np.testing.assert_array_equal(read(tmp_path, good)["f"], np.eye(2))


def test_sum_of_the_arrays_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("fastreid_clip3d.body.unpickle.MAX_TOTAL_BYTES", 8 * 24)
    data = dumps({"f": np.eye(4), "weights": np.eye(4)}, 2)
    assert "more than the 192 bytes" in refusal(tmp_path, data)
    np.testing.assert_array_equal(read(tmp_path, data, ("f",))["f"], np.eye(4))


def array_state(shape, dtype="f8", data=b"", order="<"):
    """A pickled array with a header of our choice."""
    raw = dumps(np.zeros(1, "f8"), 2)[2:-1]
    head = raw[: raw.index(b"R") + 1]
    state = dumps((1, shape, Call("numpy", "dtype", (dtype, 0, 1)), False, data), 2)[2:-1]
    return b"\x80\x02}U\x01f" + head + state + b"bs."


@pytest.mark.parametrize(
    "shape, dtype, wanted",
    [
        ((1 << 30, 1 << 12), "f8", "asks for"),
        ((2**31 - 1,) * 8, "f8", "asks for"),
        ((-1,), "f8", "shape"),
        ((2.5,), "f8", "shape"),
        ((1,), "O", "'O'"),
        ((1,), "O8", "'O8'"),
        ((1,), "V1000000000000", "wanted numbers"),
        ((1,), "S9", "wanted numbers"),
        ((1,), "f16", "wanted numbers"),
    ],
)
def test_false_array_headers_are_refused(tmp_path, shape, dtype, wanted):
    message = refusal(tmp_path, array_state(shape, dtype, b"12345678"))
    assert wanted in message and "field 'f'" in message


@pytest.mark.parametrize("shape", [(0,), (0, 1 << 62), (0, 1 << 62, 1 << 62)])
def test_empty_arrays_of_any_shape_are_an_array_or_a_message(tmp_path, shape):
    try:
        assert read(tmp_path, array_state(shape))["f"].size == 0
    except ClearError as error:
        assert "Nothing in it was run" in str(error)


def test_a_true_array_header_is_read(tmp_path):
    data = array_state((1,), "f8", struct.pack("<d", 2.5))
    assert read(tmp_path, data)["f"].tolist() == [2.5]


def sparse(**changes):
    state = {
        "_shape": (2, 3),
        "indptr": np.array([0, 1, 1, 2]),
        "indices": np.array([0, 1]),
        "data": np.array([5.0, 7.0]),
    }
    return {"f": Instance("scipy.sparse.csc", "csc_matrix", dict(state, **changes))}


@pytest.mark.parametrize(
    "changes",
    [
        {"_shape": (1 << 30, 1 << 30)},
        {"_shape": (2,)},
        {"_shape": None},
        {"indptr": np.array([0, 1, 2])},
        {"indptr": np.array([0, 2, 1, 2])},
        {"indptr": np.array([0, 1, 1, 1 << 40])},
        {"indices": np.array([0, 2])},
        {"indices": np.array([-1, 1])},
        {"indices": np.array([0.0, 1.0])},
        {"data": np.array([1.0])},
        {"data": np.eye(2)},
        {"data": "text"},
        {"data": Instance("scipy.sparse.csc", "csc_matrix", {})},
    ],
)
def test_false_sparse_matrices_are_refused(tmp_path, changes):
    np.testing.assert_array_equal(read(tmp_path, dumps(sparse(), 2))["f"], [[5, 0, 0], [0, 0, 7]])
    assert "field 'f'" in refusal(tmp_path, dumps(sparse(**changes), 2))


@pytest.mark.parametrize(
    "changes",
    [
        {"idxs": np.array([0, 6])},
        {"idxs": np.array([-1, 0])},
        {"idxs": np.array([0.5])},
        {"preferred_shape": (3, 3)},
        {"preferred_shape": (1 << 40, 1 << 40)},
        {"a": "text"},
    ],
)
def test_false_chumpy_selections_are_refused(tmp_path, changes):
    state = {"a": chumpy(np.arange(6.0).reshape(2, 3)), "idxs": np.array([5, 0]), "preferred_shape": (2, 1)}
    good = {"f": Instance("chumpy.reordering", "Select", state)}
    assert read(tmp_path, dumps(good, 2))["f"].tolist() == [[5.0], [0.0]]
    refusal(tmp_path, dumps({"f": Instance("chumpy.reordering", "Select", dict(state, **changes))}, 2))


def test_selections_cannot_grow_beyond_the_limit(tmp_path, monkeypatch):
    """One byte chooses an element of eight."""
    state = {"a": chumpy(np.arange(6.0)), "idxs": np.zeros(1000, np.int8), "preferred_shape": (1000,)}
    data = dumps({"f": Instance("chumpy.reordering", "Select", state)}, 2)
    assert read(tmp_path, data)["f"].nbytes == 8000
    monkeypatch.setattr("fastreid_clip3d.body.unpickle.MAX_ARRAY_BYTES", 2000)
    assert "too many" in refusal(tmp_path, data)


def test_a_chain_of_chumpy_arrays_that_never_ends(tmp_path):
    # The state of the object holds the object again.
    data = b"\x80\x02}U\x01fcchumpy.ch\nCh\n)\x81q\x00}U\x01xh\x00sbs."
    assert "nested too deeply" in refusal(tmp_path, data)


# ---- npz ---------------------------------------------------------------------------------------------------------


def npy(shape, dtype="<f8", data=b"", header=None) -> bytes:
    text = header or f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


def write_npz(path, **members: bytes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def test_npz_equals_numpys_reader(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
        "c": np.array(3),
    }
    np.savez(tmp_path / "m.npz", **arrays)
    found = read_npz(tmp_path / "m.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert set(read_npz(tmp_path / "m.npz", names=("b", "absent"))) == {"b"}


@pytest.mark.parametrize(
    "member, wanted",
    [
        (npy((1 << 40,)), "asks for 8,796,093,022,208 bytes"),
        (npy((1 << 20,)), "cut short"),
        (npy((-1,)), "negative"),
        (npy((1,), data=b"1234567"), "cut short"),
        (npy((1,), "|O", b"x" * 8), "Python objects"),
        (npy((1,), header="__import__('os').system('true')"), "cannot be read"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", (1 << 32) - 1), "header of 4,294,967,295 bytes"),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"nothing", "cannot be read"),
        (npy((1,), header="{'descr': ("), "cannot be read"),
        (npy((1,), header=9000 * "["), "cannot be read"),
        (npy((1,), header=9000 * "-"), "cannot be read"),
    ],
)
def test_false_npz_headers_are_refused(tmp_path, member, wanted):
    path = write_npz(tmp_path / "m.npz", f=member)
    with pytest.raises(ClearError) as caught:
        read_npz(path)
    assert wanted in str(caught.value) and "m.npz" in str(caught.value)


def test_npz_with_a_pickle_runs_nothing(tmp_path):
    trap = tmp_path / "written"
    array = np.empty(1, dtype=object)
    array[0] = _Touch(trap)
    np.savez(tmp_path / "m.npz", v_template=array, other=np.arange(3))
    with pytest.raises(ClearError, match="Python objects"):
        read_npz(tmp_path / "m.npz")
    assert read_npz(tmp_path / "m.npz", names=("other",))["other"].tolist() == [0, 1, 2]
    assert not trap.exists()


def test_zip_bomb_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("fastreid_clip3d.body.archives.MAX_ARRAY_BYTES", 1 << 20)
    monkeypatch.setattr("fastreid_clip3d.body.archives.MAX_TOTAL_BYTES", 3 << 19)
    one = npy((1 << 17,), data=bytes(1 << 20))
    path = write_npz(tmp_path / "bomb.npz", a=one, b=one)
    assert path.stat().st_size < 10_000
    with pytest.raises(ClearError, match="holds more than"):
        read_npz(path)
    big = npy(((1 << 17) + 1,), data=bytes((1 << 20) + 8))
    with pytest.raises(ClearError, match="asks for 1,048,584 bytes"):
        read_npz(write_npz(tmp_path / "big.npz", a=big))
    assert read_npz(path, names=("a",))["a"].nbytes == 1 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_inflate_without_a_bound_are_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "m.npz", "w", method) as archive:
        archive.writestr("a.npy", npy((2,), data=bytes(16)))
    with pytest.raises(ClearError, match="m.npz', array 'a' is compressed by another method"):
        read_npz(tmp_path / "m.npz")


def test_npz_that_is_no_zip(tmp_path):
    (tmp_path / "m.npz").write_bytes(b"<html>please log in</html>")
    with pytest.raises(ClearError, match="cannot be read as .npz"):
        read_npz(tmp_path / "m.npz")
    stream = io.BytesIO()
    np.savez(stream, a=np.arange(1000.0))
    (tmp_path / "m.npz").write_bytes(stream.getvalue()[:2000])
    with pytest.raises(ClearError, match="cannot be read as .npz"):
        read_npz(tmp_path / "m.npz")
