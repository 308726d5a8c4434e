"""Runs one command of the demo, shows its progress and keeps its whole output in a file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from fastreid_clip3d.errors import ClearError

SHOWN = ("eta:", "Resum", "Loading checkpoint", "WARNING", "Start inference")


def run_command(
    command: list[str],
    log_file: Path,
    environment: Mapping[str, str],
    show: Callable[[str], bool] = lambda line: any(word in line for word in SHOWN),
) -> None:
    """Runs `command`; lines of its standard output that `show` accepts, and its standard error, reach the terminal.

    Raises:
        ClearError: it failed; the message has its last lines and names the log file.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    last_lines: deque[str] = deque(maxlen=15)
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with log_file.open("a", encoding="utf-8") as log:
        errors = threading.Thread(target=_relay_errors, args=(process, last_lines), daemon=True)
        errors.start()
        try:
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                log.write(line + "\n")
                last_lines.append(line)
                if show(line):
                    print("  " + line, flush=True)
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        errors.join()
    if code:
        told = "\n".join(last_lines)
        raise ClearError(
            f"{' '.join(command)} ended with code {code}. Its whole output is in {log_file}; the end:\n{told}"
        )


def _relay_errors(process: subprocess.Popen, last_lines: deque[str]) -> None:
    """Passes standard error on as it comes, so that progress bars move, and remembers its lines."""
    pending = b""
    while chunk := os.read(process.stderr.fileno(), 4096):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        *lines, pending = (pending + chunk).split(b"\n")
        last_lines.extend(line.decode(errors="replace").split("\r")[-1] for line in lines)
