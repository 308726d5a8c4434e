"""Files that are whole or absent, temporary names, and the check before the work."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fastreid_clip3d.common import files
from fastreid_clip3d.common.files import check_writable, check_writable_folder, replacing, write_atomically
from fastreid_clip3d.errors import ClearError


def fork(work) -> int:
    """Runs `work` in a forked child; returns the child's exit status as ``os.waitpid`` gives it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_atomically(path, b"one")
    write_atomically(path, lambda stream: stream.write(b"two"))
    assert path.read_bytes() == b"two" and os.listdir(path.parent) == ["a.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("name", ["e" * 255, "é" * 127])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, b"x")
    assert os.listdir(tmp_path) == [name]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(stream) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ClearError, match="a cannot be written .the disk is full.. Free some space"):
        write_atomically(path, fail)
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_the_temporary_name_can_keep_the_ending(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.onnx", keep_ending=True) as temporary:
        assert temporary.suffix == ".onnx" and temporary.name.startswith(".") and files.is_temporary(temporary.name)
        temporary.write_bytes(b"x")
    assert (tmp_path / "a.onnx").read_bytes() == b"x"


class SmallDisk(io.BytesIO):
    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 10_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_torchs_error_after_one_of_the_disk_is_reported_as_the_disks(tmp_path: Path) -> None:
    """torch.save ends with a RuntimeError about its own format."""
    with pytest.raises(ClearError, match="a.pth cannot be written .the disk is full.. Free some space"):
        write_atomically(tmp_path / "a.pth", lambda _: torch.save({"a": torch.zeros(10_000)}, SmallDisk()))
    assert os.listdir(tmp_path) == []
    for other in (RuntimeError("another one"), ClearError("the user's")):
        with pytest.raises(type(other), match=str(other)), replacing(tmp_path / "a"):
            try:
                raise OSError("seen and left behind") if isinstance(other, ClearError) else KeyError
            except (OSError, KeyError):
                raise other from None  # the first one stays its context


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_kill_leaves_the_old_file_and_the_next_program_removes_the_rest(tmp_path: Path, call: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    script = "import os, signal, sys\nfrom fastreid_clip3d.common import files\n"
    script += (
        f"os.{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nfiles.write_atomically(sys.argv[1], b'new')"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)])
    assert killed.returncode == -9
    assert path.read_bytes() == b"old" and len(os.listdir(tmp_path)) == 2
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer" and os.listdir(tmp_path) == ["a"]


def test_only_abandoned_temporary_files_are_removed(tmp_path: Path, monkeypatch) -> None:
    def name(process: int, machine: str = files._MACHINE) -> Path:
        path = tmp_path / f".x.{machine}-{process}-0.partial"
        path.write_bytes(b"")
        return path

    dead = subprocess.Popen(["true"])
    dead.wait()
    alive, elsewhere, mine, own = name(os.getppid()), name(1, "abcdef"), name(os.getpid()), tmp_path / ".x.partial"
    own.write_bytes(b"")
    left_over = name(dead.pid)
    files.remove_leftovers(tmp_path)
    assert not left_over.exists() and not mine.exists()
    assert alive.exists() and elsewhere.exists() and own.exists()
    for path in (elsewhere, own):
        os.utime(path, (time.time() - 2 * files.SECONDS_UNTIL_ABANDONED,) * 2)
    files.remove_leftovers(tmp_path)
    assert not elsewhere.exists() and own.exists()


def test_a_file_being_written_by_this_program_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as temporary:
        temporary.write_bytes(b"x")
        files.remove_leftovers(tmp_path)
        assert fork(lambda: files.remove_leftovers(tmp_path)) == 0
        assert temporary.exists()


def test_a_fifo_is_written_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert check_writable(path, ()) == path
    write_atomically(path, b"through")
    assert os.read(reader, 100) == b"through" and stat.S_ISFIFO(path.stat().st_mode)
    os.close(reader)


# -- before the work -------------------------------------------------------------------------------------------------


def test_a_good_place_is_accepted_and_nothing_is_made(tmp_path: Path) -> None:
    assert check_writable(tmp_path / "a" / "b" / "c.JSON", (".json",)) == tmp_path / "a" / "b" / "c.JSON"
    assert check_writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert os.listdir(tmp_path) == []
    (tmp_path / "c.json").write_text("old")
    check_writable(tmp_path / "c.json")
    assert check_writable("/dev/null") == Path("/dev/null")


@pytest.mark.parametrize(
    "path, message",
    [
        ("a.txt", r"a.txt: the name ends in .txt; it can be written as .json or .csv"),
        ("a", r"a: the name has no ending; it can be written as .json"),
        ("folder.json", "folder.json is a folder; name a file, for example .*folder.json/result.json"),
        ("file/a.json", "a.json cannot be written: .*file is no folder"),
        ("x" * 300 + ".json", "cannot be written .File name too long"),
        ("a\0.json", "cannot be written .*null"),
    ],
)
def test_a_bad_place_is_refused_with_a_remedy(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ClearError, match=message):
        check_writable(f"{tmp_path}/{path}", (".json", ".csv"))


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ClearError, match="is empty"):
        check_writable("")
    with pytest.raises(ClearError, match="OUTPUT_DIR is empty"):
        check_writable_folder("", "OUTPUT_DIR")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClearError, match="OUTPUT_DIR .*file cannot be written: .*file is no folder"):
        check_writable_folder(tmp_path / "file", "OUTPUT_DIR")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ClearError, match="gone is no folder"):
        check_writable(tmp_path / "gone" / "a.json")
    if os.geteuid() == 0:  # permissions do not bind this user
        read_only = Path("/proc/sys")
    else:
        read_only = tmp_path / "locked"
        read_only.mkdir(mode=0o500)
    with pytest.raises(ClearError, match="new/a.json cannot be written .*Choose a place"):
        check_writable(read_only / "new" / "a.json")


def test_a_socket_is_not_replaced(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(ClearError, match="s cannot be written"):
            write_atomically("s", b"x")
    assert stat.S_ISSOCK(os.stat("s").st_mode)
