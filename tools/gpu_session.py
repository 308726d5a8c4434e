#!/usr/bin/env python
"""Runs the CUDA tests, the benchmarks and the study on a GPU machine, within a time limit."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fastreid_clip3d.common.dataset_root import below_dataset_root, dataset_root  # noqa: E402
from fastreid_clip3d.errors import ClearError, run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # the tests, the tables and, with the time that is left, the study; raw output in logs/gpu
  python tools/gpu_session.py --minutes 25

  # parts by name, as --list prints them
  python tools/gpu_session.py --list
  python tools/gpu_session.py --only doctor tests --output logs/gpu-tests

  # afterwards, on any machine: the tables into docs/performance.md
  python tools/benchmark.py tables --folder logs/gpu --update-docs

exit code: 0 all parts succeeded, 1 some failed or had no time
"""


@dataclass(frozen=True)
class Part:
    """One command of the session.

    Attributes:
        name: of its output files. words: of the command, behind ``python``; ``{output}`` is the session's folder,
            ``{data}`` that of the datasets.
        most: seconds that it may take at most. dataset: it is left out where this folder is missing below the datasets.
        library: it is left out where this library is not installed.
    """

    name: str
    words: tuple[str, ...]
    most: float = 600
    dataset: str = ""
    library: str = ""


NO_TIME = "left out: no time"
INCOMPLETE = ("failed", "stopped", NO_TIME)
"""How the outcomes of parts begin with which the session is not complete."""


def step_words(name: str, *more: str) -> tuple[str, ...]:
    """A step benchmark whose figures go into the session's folder."""
    file = "{output}/" + name + ".json"
    return ("tools/benchmark.py", "step", "--device", "{device}", "--workers", "8", "--json", file, *more)


PARTS = (
    Part("doctor", ("-m", "fastreid_clip3d", "doctor", "--json"), 60),
    Part("tests", ("-m", "pytest", "-m", "cuda", "-q", "--tb=short", "--durations=10", "tests/cuda"), 600),
    Part("step-float16", step_words("step-float16", "--precision", "float16"), 240),
    Part("step-bfloat16", step_words("step-bfloat16", "--precision", "bfloat16"), 240),
    Part("step-float32", step_words("step-float32"), 240),
    Part(
        "step-compiled",
        step_words("step-compiled", "--precision", "float16", "--no-online", "MODEL.COMPILE", "True"),
        400,
    ),
    Part("label", ("tools/benchmark.py", "label", "--device", "{device}", "--json", "{output}/label.json"), 180),
    Part(
        "label-vit-l14",
        ("tools/benchmark.py", "label", "--random-weights", "ViT-L-14", "--images", "2048", "--workers", "8",
         "--device", "{device}", "--json", "{output}/label-vit-l14.json"),
        300,
    ),
    Part(
        "evaluation",
        ("tools/benchmark.py", "evaluation", "--size", "msmt17", "--only", "ours", "--device", "{device}",
         "--json", "{output}/evaluation.json"),
        180,
    ),
    Part("teacher", ("tools/benchmark.py", "teacher", "--device", "{device}", "--json", "{output}/teacher.json"), 120),
    Part(
        "render",
        ("tools/benchmark.py", "render", "--images", "10000", "--repeats", "1", "--threads", "8",
         "--device", "{device}", "--json", "{output}/render.json"),
        240,
        library="pytorch3d",
    ),
    Part("tables", ("tools/benchmark.py", "tables", "--folder", "{output}", "--markdown", "{output}/tables.md"), 60),
    Part(
        "study",
        ("tools/reproduce.py", "--table", "10", "--data", "synthcc", "--data-folder", "{data}",
         "--study-folder", "{output}/study", "--options", "MODEL.DEVICE", "{device}"),
        3600,
        dataset="SynthCC-tiny",
    ),
)  # fmt: skip
"""In the order of their worth: tests first, then the tables, and the study with what is left."""


def run_parts(parts: Sequence[Part], output: Path, seconds: float, device: str = "cuda") -> list[dict[str, object]]:
    """Runs the parts one after another until the time is over; each one's output is a file of its own.

    Returns:
        For each part {name, command, outcome: done, failed, stopped (out of time), left out; seconds, exit_code}; after
        each part they are written to ``session.json``.
    """
    output.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    reports: list[dict[str, object]] = []
    for part in parts:
        words = [word.format(output=output, device=device, data=Path(dataset_root()).absolute()) for word in part.words]
        started = time.monotonic()
        limit = min(part.most, deadline - started)
        code: int | None = None
        if part.dataset and not below_dataset_root(part.dataset).is_dir():
            outcome = f"left out: no {part.dataset} below FASTREID_DATASETS"
        elif part.library and importlib.util.find_spec(part.library) is None:
            outcome = f"left out: {part.library} is not installed"
        elif limit < 5:
            outcome = NO_TIME
        else:
            print(f"{part.name}: at most {limit:.0f} s", flush=True)
            outcome, code = _run([sys.executable, *words], output / f"{part.name}.txt", limit)
        taken = time.monotonic() - started
        reports.append({"name": part.name, "command": words, "outcome": outcome, "seconds": taken, "exit_code": code})
        print(f"{part.name}: {outcome} ({taken:.0f} s)", flush=True)
        (output / "session.json").write_text(json.dumps(reports, indent=2) + "\n")
    return reports


def _run(command: list[str], log: Path, limit: float) -> tuple[str, int | None]:
    """Runs a command with its children in a session of their own, which is ended as a whole when the time is over."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "stopped: out of time", None
        except BaseException:  # Ctrl-C: nothing goes on in the background
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return ("done" if code == 0 else "failed"), code


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=25, help="time for all parts (25)")
    parser.add_argument("--output", default="logs/gpu", metavar="FOLDER", help="for the raw output (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts (all)")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the session itself (cuda)")
    parser.add_argument("--list", action="store_true", help="print the parts and their commands")
    arguments = parser.parse_args()
    names = [part.name for part in PARTS]
    unknown = sorted(set(arguments.only or ()) - set(names))
    if unknown:
        raise ClearError(f"--only {' '.join(unknown)}: choose from {', '.join(names)}.")
    chosen = [part for part in PARTS if not arguments.only or part.name in arguments.only]
    if arguments.list:
        print(json.dumps([asdict(part) for part in chosen], indent=2))
        return 0
    from fastreid_clip3d.common.devices import find_device

    find_device(arguments.device)
    reports = run_parts(chosen, Path(arguments.output).absolute(), 60 * arguments.minutes, arguments.device)
    return int(any(str(report["outcome"]).startswith(INCOMPLETE) for report in reports))


if __name__ == "__main__":
    run_tool(main)
