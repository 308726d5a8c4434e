"""Runs of a study: each run is one call of tools/train_net.py with its own folder. Several can train at a time.

A run that was interrupted continues. Its folder holds ``run.json`` beside the files of the training: the variant, the
seed, the config, the seconds of training, the scores by test set and protocol, and the reason of a failure.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastreid.config import CfgNode
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.common.locks import lock_folder
from fastreid_clip3d.common.parent_death import children_end_at_once
from fastreid_clip3d.config import get_cfg
from fastreid_clip3d.config_loading import all_keys, load_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import read_features
from fastreid_clip3d.evaluation.protocols import GENERAL
from fastreid_clip3d.evaluation.ranking import evaluate
from tools.study.repository import REPOSITORY
from tools.study.variants import Variant

RECORD, LOG = "run.json", "train.log"
SECONDS_BETWEEN_LOOKS = 1.0
# These keys do not change what the student learns: they set folders, test sets, loading and logging.
NOT_COMPARED = (
    "OUTPUT_DIR", "DATASETS.TESTS", "DATALOADER.NUM_WORKERS", "WRITE_PERIOD", "SOLVER.CHECKPOINT_PERIOD", "SEED",
    "MODEL.BACKBONE.PRETRAIN_PATH", "MODEL.TEACHER.CACHE_DIR", "TEST.EVALUATION", "TEST.EVAL_PERIOD",
    "TEST.IMS_PER_BATCH",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training and its test.

    Attributes:
        options: all ``KEY VALUE`` pairs, without OUTPUT_DIR and DATASETS.TESTS.
        tests: datasets that score it.
    """

    variant: Variant
    seed: int
    folder: Path
    options: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"

    @property
    def config_file(self) -> str:
        return str(REPOSITORY / self.variant.config)

    @property
    def all_options(self) -> list[str]:
        return [*self.options, "DATASETS.TESTS", repr(self.tests), "OUTPUT_DIR", str(self.folder)]

    @property
    def command(self) -> list[str]:
        tool = str(REPOSITORY / "tools" / "train_net.py")
        return [sys.executable, tool, "--config-file", self.config_file, "--resume", *self.all_options]

    def printable_command(self) -> str:
        """The command as a user types it in the repository."""
        arguments = ["--config-file", self.variant.config, "--resume", *self.all_options]
        return shlex.join(["python", "tools/train_net.py", *arguments])

    def config(self) -> dict[str, str]:
        """The keys that decide what the student learns, and their values as text. All seeds of a variant share them."""
        cfg = load_config(self.config_file, self.all_options)
        return {key: repr(_value(cfg, key)) for key in all_keys(cfg) if not key.startswith(NOT_COMPARED)}

    def settings(self) -> str:
        """Digest of the values that differ from the defaults: a key that a later version adds does not change it."""
        defaults = get_cfg()
        own = {key: value for key, value in self.config().items() if value != repr(_value(defaults, key))}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]

    def changes(self) -> list[str]:
        """Keys whose values differ from those of the run in the folder. Keys that only one of both has are left out."""
        stored, now = self.record().get("config", {}), self.config()
        return [f"{key} was {stored[key]}, is {now[key]}" for key in now if stored.get(key, now[key]) != now[key]]

    def record(self) -> dict[str, Any]:
        """The content of ``run.json``; empty if there is no such file."""
        return read_record(self.folder)

    def iterations(self) -> int:
        """Number of training steps, computed from the images of its datasets; 1 if these cannot be read."""
        cfg = load_config(self.config_file, self.all_options)
        try:
            from fastreid_clip3d.data.datasets.from_config import dataset_of

            images = sum(len(dataset_of(cfg, name).train) for name in cfg.DATASETS.NAMES)
        except ClearError:
            return 1
        return max(1, images // cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.MAX_EPOCH)

    def is_done(self) -> bool:
        """Whether it has scores for all of `tests`."""
        return set(self.tests) <= set(self.record().get("scores", {}))


def read_record(folder: Path) -> dict[str, Any]:
    """``run.json`` of a folder; empty if there is no such file.

    Raises:
        ClearError: the file cannot be read.
    """
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["variant"], record["seed"], record["settings"]
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClearError(f"{path} cannot be read ({error}). Delete {folder} to train again.") from error


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    write_atomically(folder / RECORD, text.encode())


def check_settings(runs: Sequence[Run]) -> None:
    """Refuses folders that hold runs with other settings.

    Raises:
        ClearError: there are such folders; the message names them and the keys.
    """
    other = {str(run.folder): changes for run in runs if (changes := run.changes())}
    if other:
        shown = "; ".join(f"{folder} ({', '.join(changes[:3])})" for folder, changes in list(other.items())[:4])
        raise ClearError(
            f"{len(other)} run folders hold runs with other settings: {shown}{'; ...' if len(other) > 4 else ''}. "
            "Choose another --study-folder, or delete these."
        )


def training_environment(data_folder: Path, threads: int) -> dict[str, str]:
    """Variables of a training: the folder of the datasets, and the number of threads (0: no limit)."""
    environment = {"FASTREID_DATASETS": str(data_folder), "PYTHONUNBUFFERED": "1"}
    if threads:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment |= dict.fromkeys(names, str(threads))
    return environment


def _value(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def run_all(
    runs: Sequence[Run],
    jobs: int,
    environment: Mapping[str, str],
    after_each: Callable[[], None] = lambda: None,
    folder: Path | None = None,
) -> list[Run]:
    """Trains and scores all runs that are not done, `jobs` at a time, and calls `after_each` after each.

    A failed run does not stop the others; its ``run.json`` names its log. An interruption ends the trainings. The next
    call continues each from its last checkpoint.

    Args:
        environment: variables that each training gets on top of those of this process.
        folder: this folder is locked meanwhile; None: the folder of the first run's table.

    Returns:
        the runs that failed.

    Raises:
        ClearError: a folder holds a run with other settings, or another study works in `folder`.
    """
    if not runs:
        return []
    check_settings(runs)
    todo = [run for run in runs if not run.is_done()]
    console = Console(soft_wrap=True)
    console.print(f"{len(runs)} runs, {len(runs) - len(todo)} of them are finished already")
    if not todo:
        after_each()
        return []
    steps = {run: run.iterations() for run in todo}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=900.0)
    waiting, active, failed = list(todo), {}, []
    folder = folder or runs[0].folder.parents[1]
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder), progress as bars:
        overall = bars.add_task("all runs", total=sum(steps.values()))
        start, at_start = time.monotonic(), sum(_steps_done(run) for run in todo)
        finished_steps = 0
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    training = _Training(waiting.pop(0), environment)
                    training.bar = bars.add_task(training.run.name, total=steps[training.run])
                    active[training.run] = training
                    console.print(f"started: {training.run.name} ({training.run.folder})")
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for run, training in list(active.items()):
                    bars.update(training.bar, completed=min(_steps_done(run), steps[run]))
                    if training.process.poll() is None:
                        continue
                    del active[run]
                    bars.remove_task(training.bar)
                    finished_steps += steps[run]
                    failure = training.finish()
                    if failure:
                        failed.append(run)
                    made = finished_steps + sum(_steps_done(other) for other in active) - at_start
                    left = _time_left(time.monotonic() - start, made, sum(steps.values()) - finished_steps)
                    console.print(failure or _one_line(run), left)
                    after_each()
                bars.update(overall, completed=finished_steps + sum(_steps_done(run) for run in active))
        except BaseException:
            for training in active.values():
                training.stop()
            raise
    return failed


def _time_left(seconds: float, made: int, steps_left: int) -> str:
    """An estimate from the steps `made` in `seconds`; "" after less than a twentieth of the steps that are left."""
    if made * 20 < steps_left:
        return ""
    return f"-- about {seconds / max(made, 1) * max(steps_left, 0) / 60:.0f} minutes left"


class _Training:
    """One training process and the record of its run."""

    def __init__(self, run: Run, environment: Mapping[str, str]) -> None:
        self.run, self.start = run, time.monotonic()
        run.folder.mkdir(parents=True, exist_ok=True)
        record = {"variant": run.variant.name, "title": run.variant.title, "seed": run.seed}
        record |= {"settings": run.settings(), "config": run.config()}
        self.record = {"seconds": 0.0, "scores": {}, **run.record(), **record, "command": run.printable_command()}
        self.record.pop("failure", None)
        write_record(run.folder, self.record)
        self.log = (run.folder / LOG).open("ab")  # _note_time closes it
        with children_end_at_once():  # a killed study leaves no training behind
            variables = {**os.environ, **environment}
            self.process = subprocess.Popen(
                run.command, cwd=REPOSITORY, env=variables, stdout=self.log, stderr=subprocess.STDOUT
            )

    def finish(self) -> str:
        """Writes scores or the failure into ``run.json``; returns a sentence if the run failed, else ""."""
        self._note_time()
        code = self.process.returncode
        failure = f"ended with code {code}" if code else ""
        if not failure:
            try:
                self.record["scores"].update({name: scores_of(self.run.folder, name) for name in self.run.tests})
            except ClearError as error:
                failure = f"cannot be scored: {error}"
        if not failure:  # only model_final.pth is needed now; the checkpoints before it were for resuming
            for checkpoint in self.run.folder.glob("model_[0-9]*.pth"):
                checkpoint.unlink()
        if failure:
            self.record["failure"] = f"{failure}; its output: {self.run.folder / LOG}"
        write_record(self.run.folder, self.record)
        return f"FAILED: {self.run.name} {self.record['failure']}" if failure else ""

    def stop(self) -> None:
        """Ends the process. Its checkpoints stay."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._note_time()
        write_record(self.run.folder, self.record)

    def _note_time(self) -> None:
        self.log.close()
        self.record["seconds"] = round(self.record["seconds"] + time.monotonic() - self.start, 1)


def scores_of(folder: Path, dataset: str) -> dict[str, dict[str, float | None]]:
    """Scores in percent by protocol, computed from the features that the run wrote.

    Raises:
        ClearError: the run wrote no features, or they cannot be read.
    """
    from fastreid_clip3d.data.datasets import build_dataset

    declared = tuple(getattr(build_dataset(dataset), "protocols", ())) or (GENERAL,)
    scores: dict[str, dict[str, float | None]] = {}
    for protocol in declared:
        suffix = f"_{protocol.tracklet_pooling or 'clips'}"
        files = [folder / "evaluation" / f"{dataset}{end}_features.npz" for end in (suffix, "")]
        file = next((path for path in files if path.is_file()), files[-1])
        result = evaluate(*read_features(file), [protocol])[protocol.name]
        scores[protocol.name] = result.percentages()
    return scores


def _one_line(run: Run) -> str:
    record = run.record()
    scores = [
        f"{protocol} mAP {values['mAP']:.1f} Rank-1 {values['Rank-1']:.1f}"
        for name in run.tests
        for protocol, values in record["scores"][name].items()
        if values["mAP"] is not None and protocol != "SC"
    ]
    return f"done: {run.name}, {record['seconds'] / 60:.1f} minutes: {'; '.join(scores)}"


def _steps_done(run: Run) -> int:
    """Iterations in the run's metrics.json."""
    path = run.folder / "metrics.json"
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 8192))
        lines = file.read().splitlines()
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["iteration"]) + 1
    return 0
