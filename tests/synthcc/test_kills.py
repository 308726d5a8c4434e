"""Rendering a set with real kills: workers end with their parent, and two programs do not share a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.synthcc.generate import generate_set
from fastreid_clip3d.synthcc.plan import SetConfig

ROOT = Path(__file__).resolve().parents[2]
CONFIG = SetConfig(
    "Killed", train_people=16, test_people=0, val_people=0, height=64, width=32, outfits=2, images_per_outfit=2
)
PROGRAM = f"""
import sys
from fastreid_clip3d.synthcc.generate import generate_set
from fastreid_clip3d.synthcc.plan import SetConfig
generate_set(sys.argv[1], {CONFIG!r}, workers=2)
"""


def children_of(process: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*/*.jpg"))}


@pytest.fixture
def program(tmp_path):
    """The folder of a set that another program renders with two workers, that program, and its workers."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], env=environment)
    folder = tmp_path / CONFIG.folder
    assert wait_until(lambda: len(list(folder.glob("train/*.jpg"))) >= 2, 300)
    workers = children_of(process.pid)
    yield folder, process, workers
    for running in (process.pid, *workers):
        if is_running(running):
            os.kill(running, signal.SIGKILL)
    process.wait()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_the_workers_of_a_killed_program_end_and_the_next_run_completes_the_set(program, tmp_path):
    folder, process, workers = program
    assert len(workers) == 2
    process.kill()
    process.wait()
    assert wait_until(lambda: not any(map(is_running, workers)), 10)
    assert 0 < len(pictures(folder)) < 64
    generate_set(folder.parent, CONFIG, workers=1)
    assert pictures(folder) == pictures(generate_set(tmp_path / "undisturbed", CONFIG, workers=1))
    assert not [path for path in folder.rglob(".*") if path.name != ".shards"]


def test_a_second_program_learns_who_holds_the_folder(program):
    folder, process, _ = program
    before = set(pictures(folder))
    with pytest.raises(ClearError, match=f"in use: process {process.pid} "):
        generate_set(folder.parent, CONFIG, workers=1)
    assert process.poll() is None and before <= set(pictures(folder))
    assert process.wait(300) == 0
    assert len(pictures(folder)) == 64
