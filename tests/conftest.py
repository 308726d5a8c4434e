"""Makes the repository importable and the tests independent of the user's folders and of each other's threads."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHON_PATH = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
"""For processes of the tests: this checkout first, then what the caller has there."""
sys.path.insert(0, str(REPOSITORY))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("FASTREID_DATASETS", None)
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background job; the children of tests would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402
import torch  # noqa: E402

import fastreid_clip3d  # noqa: E402, F401  (fast-reid imports only after it)
from fastreid_clip3d import cli  # noqa: E402

NO_DEVICE = "no CUDA device"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` are collected everywhere, and skipped where there is no device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason=NO_DEVICE))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for all of them."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NO_DEVICE in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{NO_DEVICE}: {len(skipped)} tests that need one were skipped (`clip3d doctor` says what torch sees)"
        )


@pytest.fixture(autouse=True, scope="session")
def _freed_memory_goes_back() -> Iterator[None]:
    """A command that a test runs in this process must not make it keep all memory that later tests free."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "keep_memory", lambda: False)
        yield


gc.freeze()  # collections during the tests and at their end need not walk through torch's modules
