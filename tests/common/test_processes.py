"""Workers end with the program that started them, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastreid_clip3d.common import parent_death
from fastreid_clip3d.common.processes import end_with_parent

ROOT = Path(__file__).resolve().parents[2]
PARENT = """
import concurrent.futures, multiprocessing, sys, time
from fastreid_clip3d.common.processes import end_with_parent
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    pool = concurrent.futures.ProcessPoolExecutor(2, mp_context=context, initializer=end_with_parent)
    for future in [pool.submit(time.sleep, 0.2) for _ in range(4)]:
        future.result()
    print(*pool._processes, flush=True)
    time.sleep(60)
"""


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:  # no /proc, or it has just ended
        return not Path("/proc/self").exists()


def left_running(processes: list[int], seconds: float) -> list[int]:
    """Those of the processes that still run after so many seconds; they are killed."""
    deadline = time.monotonic() + seconds
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [process for process in processes if is_running(process)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    return left


@pytest.mark.parametrize(
    "method, sent", [("fork", signal.SIGKILL), ("fork", signal.SIGTERM), ("spawn", signal.SIGKILL)]
)
def test_workers_of_a_killed_program_end(tmp_path, method, sent):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    parent = subprocess.Popen([sys.executable, str(script), method], stdout=subprocess.PIPE, text=True, env=environment)
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 2 and all(map(is_running, workers))
    parent.send_signal(sent)
    parent.wait()
    assert not left_running(workers, 10)


PARENT_OF_A_RANK = """
import importlib.util, multiprocessing, sys, time
if __name__ == "__main__":  # without the package, so that it starts at once
    spec = importlib.util.spec_from_file_location("parent_death", sys.argv[1])
    parent_death = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parent_death)
    with parent_death.children_end_at_once():
        child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(120,))
        child.start()
    print(child.pid, flush=True)
    time.sleep(120)
else:
    import fastreid_clip3d
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
@pytest.mark.parametrize("moment", ["it starts", "it imports torch"])
def test_linux_ends_a_rank_with_its_command(tmp_path: Path, moment: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT_OF_A_RANK)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(script), parent_death.__file__]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    child = int(parent.stdout.readline())
    while moment == "it imports torch" and "libtorch" not in Path(f"/proc/{child}/maps").read_text():
        assert parent.poll() is None and is_running(child)
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    assert not left_running([child], 20)


def test_the_main_program_cannot_call_it():
    with pytest.raises(RuntimeError, match="not started by multiprocessing"):
        end_with_parent()
