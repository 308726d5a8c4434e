"""Runs a command, shows its progress and writes its whole output to a file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from fastreid_clip3d.common.parent_death import children_end_at_once
from fastreid_clip3d.errors import ClearError

SHOWN = ("eta:", "Resum", "Loading checkpoint", "WARNING", "Start inference")


def run_command(
    command: list[str],
    log_file: Path,
    environment: Mapping[str, str],
    show: Callable[[str], bool] = lambda line: any(word in line for word in SHOWN),
) -> None:
    """Runs `command`; prints its standard error and those lines of its standard output that `show` accepts.

    Args:
        command: the program and its arguments.
        log_file: gets the whole standard output.
        environment: variables on top of those of this process.
        show: whether a line is printed.

    Raises:
        ClearError: the command failed; the message has its last lines and names the log file.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    last_lines: deque[str] = deque(maxlen=15)
    with children_end_at_once():  # a killed tool leaves no training behind
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
        end = "\n".join(last_lines)
        raise ClearError(
            f"{' '.join(command)} ended with code {code}. {log_file} has its whole output. The last lines:\n{end}"
        )


def _relay_errors(process: subprocess.Popen, last_lines: deque[str]) -> None:
    """Copies standard error to the terminal at once, so that progress bars move, and remembers its last lines."""
    pending = b""
    while chunk := os.read(process.stderr.fileno(), 4096):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        *lines, pending = (pending + chunk).split(b"\n")
        last_lines.extend(line.decode(errors="replace").split("\r")[-1] for line in lines)
