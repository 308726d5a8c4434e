"""A folder's lock: who holds it, that it ends with its holder, and that workers do not keep it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fastreid_clip3d.common import locks
from fastreid_clip3d.common.locks import lock_folder
from fastreid_clip3d.errors import ClearError

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import os, sys, time
from fastreid_clip3d.common.locks import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    if "fork" in sys.argv:
        worker = os.fork()
        if worker:
            print(worker, flush=True)
    time.sleep(60)
"""


def start_holder(folder: Path, *more: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *more], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_program_reads_who_holds_the_folder(tmp_path):
    holder = start_holder(tmp_path)
    try:
        expected = rf"in use: process {holder.pid} on .* writes into it"
        with pytest.raises(ClearError, match=expected), lock_folder(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    with lock_folder(tmp_path):  # the system released it
        assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_two_threads_of_one_program_exclude_each_other(tmp_path):
    with lock_folder(tmp_path), pytest.raises(ClearError, match="in use"), lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_program(tmp_path):
    holder = start_holder(tmp_path, "fork")
    worker = int(holder.stdout.readline())
    holder.kill()
    holder.wait()
    try:
        with lock_folder(tmp_path):
            assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} ")
            os.kill(worker, 0)  # raises ProcessLookupError if the worker has ended
    finally:
        os.kill(worker, signal.SIGKILL)


def test_many_threads_never_hold_the_folder_together(tmp_path):
    """Each holder removes the file at its end; a file that was opened just before must not count as the lock."""
    inside, most, held = [0], [0], [0]
    deadline = time.monotonic() + 60

    def work() -> None:
        while held[0] < 300 and time.monotonic() < deadline:
            try:
                with lock_folder(tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    held[0] += 1
                    time.sleep(0.0001)
                    inside[0] -= 1
            except ClearError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1 and held[0] >= 300


def test_a_platform_without_locks_is_named(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "fcntl", None)
    with lock_folder(tmp_path):
        pass
    assert "no file locks" in caplog.text and str(tmp_path) in caplog.text


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    with pytest.raises(ClearError, match="cannot be written"), lock_folder(tmp_path / "missing"):
        pass
