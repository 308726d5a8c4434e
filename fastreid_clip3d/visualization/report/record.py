"""Reads what a run wrote into its folder; after a kill a part of it may be missing."""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fastreid_clip3d.errors import ClearError

MISSING = float("nan")


@dataclass(frozen=True)
class Series:
    """One curve: iterations, ascending, and values; NaN where the run wrote no finite number."""

    iterations: list[int]
    values: list[float]

    def finite(self) -> list[float]:
        """The values that are numbers."""
        return [value for value in self.values if math.isfinite(value)]

    def last(self) -> float:
        """The last value, NaN where there is none."""
        return self.values[-1] if self.values else MISSING


@dataclass
class RunRecord:
    """A run's folder.

    Attributes:
        folder: the run folder. title: its name.
        settings: config.yaml as plain values; {} where it is missing or damaged.
        config_text: config.yaml's text.
        series: every curve of metrics.json by its key.
        command: the command that trained it; "" where log.txt does not have it.
        environment: the machine by log.txt, name to value.
        training_time: as fast-reid writes it; "" for a run that did not finish.
        notes: what is missing or damaged, in sentences.
    """

    folder: Path
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    series: dict[str, Series] = field(default_factory=dict)
    command: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    training_time: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def iterations(self) -> int:
        """Training steps in metrics.json."""
        steps = [
            series.iterations[-1] + 1 for name, series in self.series.items() if is_loss(name) and series.iterations
        ]
        return max(steps, default=0)

    @property
    def losses(self) -> list[str]:
        """Keys of all losses, the total first."""
        return sorted((name for name in self.series if is_loss(name)), key=lambda name: (name != "total_loss", name))

    def median(self, name: str) -> float | None:
        """The median of a curve; None without a number."""
        values = self.series[name].finite() if name in self.series else []
        return statistics.median(values) if values else None

    def images_per_second(self) -> float | None:
        """Real images per second; None where unknown."""
        measured = self.median("images_per_second")
        if measured is not None:
            return measured
        seconds, images = self.median("time"), self.setting("SOLVER.IMS_PER_BATCH")
        return images / seconds if seconds and isinstance(images, (int, float)) else None

    def setting(self, key: str) -> Any:
        """A value by its dotted key; None where config.yaml does not have it."""
        node: Any = self.settings
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node


def is_loss(name: str) -> bool:
    """Whether a key of metrics.json is a loss."""
    return name == "total_loss" or name.startswith("loss_")


def read_run(run: str | Path) -> RunRecord:
    """Reads a run folder, or the one that a checkpoint lies in.

    Raises:
        ClearError: no such folder, or one without any file of a run.
    """
    folder = Path(run)
    folder = folder.parent if folder.is_file() else folder
    if not folder.is_dir():
        raise ClearError(f"{run}: no such run folder.")
    if not any((folder / name).exists() for name in ("config.yaml", "metrics.json", "log.txt", "evaluation")):
        raise ClearError(f"{run} is not a run folder: it has no config.yaml, metrics.json, log.txt or evaluation/.")
    record = RunRecord(folder, folder.resolve().name)
    _read_config(record)
    _read_metrics(record)
    _read_log(record)
    return record


def _text(record: RunRecord, name: str, loses: str) -> str:
    try:
        return (record.folder / name).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        record.notes.append(f"{name} is missing: {loses}.")
    except OSError as error:
        record.notes.append(f"{name} cannot be read ({error.strerror or error}): {loses}.")
    return ""


def _read_config(record: RunRecord) -> None:
    text = _text(record, "config.yaml", "settings are not known")
    if not text:
        return
    record.config_text = text
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        record.notes.append(f"config.yaml is damaged: {' '.join(str(error).split())}.")
        return
    record.settings = settings if isinstance(settings, dict) else {}


def _read_metrics(record: RunRecord) -> None:
    text = _text(record, "metrics.json", "there are no curves")
    rows, broken = parse_metrics(text)
    if broken:
        record.notes.append(
            f"{broken} line(s) of metrics.json cannot be read and are left out; a run that is killed while it writes "
            "leaves half a line."
        )
    record.series = series_of(rows)
    bad = [name for name, one in record.series.items() if len(one.finite()) < len(one.values)]
    if bad:
        record.notes.append(f"Not finite at least once: {', '.join(sorted(bad))}. Curves have gaps there.")


def parse_metrics(text: str) -> tuple[list[dict[str, Any]], int]:
    """The rows of metrics.json, and the number of lines that cannot be read.

    A resumed run wrote the steps after its checkpoint twice; the later rows count.
    """
    rows: list[dict[str, Any]] = []
    broken = 0
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("iteration"), int):
            broken += 1
            continue
        while rows and rows[-1]["iteration"] >= row["iteration"] and "total_loss" in row:
            rows.pop()
        rows.append(row)
    return rows, broken


def series_of(rows: list[dict[str, Any]]) -> dict[str, Series]:
    """Curves by key; of two values at one iteration the later counts."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "iteration" and isinstance(value, (int, float, type(None))) and not isinstance(value, bool):
                number = MISSING if value is None or not math.isfinite(value) else float(value)
                found.setdefault(name, {})[row["iteration"]] = number
    return {name: Series(sorted(points), [points[i] for i in sorted(points)]) for name, points in found.items()}


def _read_log(record: RunRecord) -> None:
    text = _text(record, "log.txt", "command and machine are not known")
    called = re.findall(r"Command line arguments: ((?:Job|Namespace)\(.*\))", text)
    trainings = [call for call in called if "eval_only=True" not in call] or called  # later evaluations are no recipe
    record.command = command_of(trainings[-1]) if trainings else ""
    for name in ("Python", "PyTorch", "GPU available", "GPU 0", "CUDA_HOME", "fastreid"):
        found = re.findall(rf"^{re.escape(name)}\s{{2,}}(.+)$", text, re.MULTILINE)
        if found and found[-1].strip():
            record.environment[name] = found[-1].split(" @")[0].strip()
    finished = re.findall(r"Total training time: (\S+(?: day[s,]* \S+)?)", text)
    record.training_time = finished[-1] if finished else ""


def command_of(arguments: str) -> str:
    """The command line of ``Job(config_file=..., ...)`` in a run's log, or of fast-reid's Namespace; else ""."""
    try:
        call = ast.parse(arguments, mode="eval").body
        if not isinstance(call, ast.Call):
            return ""
        given = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
    except (SyntaxError, ValueError):
        return ""
    words = ["clip3d", "train"]
    if given.get("config_file"):
        words += ["--config-file", str(given["config_file"])]
    words += [f"--{name.replace('_', '-')}" for name in ("resume", "eval_only") if given.get(name)]
    if given.get("num_gpus", 1) != 1:
        words += ["--num-gpus", str(given["num_gpus"])]
    return shlex.join(words + [str(word) for word in given.get("opts") or []])
