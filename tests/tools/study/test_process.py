"""The commands that the demo and the studies start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastreid_clip3d.errors import ClearError
from tests.common.test_processes import is_running, left_running
from tests.conftest import REPOSITORY
from tools.study.demo.process import run_command

TOOL = """
import sys
from pathlib import Path
from tools.study.demo.process import run_command
child = "import os, fastreid_clip3d, time; print(os.getpid(), flush=True); time.sleep(120)"
run_command([sys.executable, "-c", child], Path(sys.argv[1]), {}, show=lambda line: True)
"""


def test_a_failed_command_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    child = "import sys; print('out'); print('reason', file=sys.stderr); sys.exit(3)"
    with pytest.raises(ClearError, match=r"(?s)ended with code 3.*log\.txt has its whole output.*lines:\nout\nreason$"):
        run_command([sys.executable, "-c", child], tmp_path / "log.txt", {})
    assert (tmp_path / "log.txt").read_text() == "out\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_tool_leaves_no_training_behind(tmp_path: Path, kind: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", TOOL, str(tmp_path / "log.txt")]
    tool = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=REPOSITORY)
    child = int(tool.stdout.readline())
    assert is_running(child)
    tool.send_signal(kind)
    tool.wait()
    assert not left_running([child], 20)
