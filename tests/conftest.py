"""Makes the repository importable and the tests independent of the user's folders and of each other's threads."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("FASTREID_DATASETS", None)
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background job; the children of tests would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

import fastreid_clip3d  # noqa: E402, F401  (fast-reid imports only after it)
