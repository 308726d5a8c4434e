"""What every table's study has in common: its rows, its seeds, where its runs are, and its results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from tools.study import results
from tools.study.demo.process import run_command
from tools.study.demo.stages import REPOSITORY
from tools.study.runner import RECORD, Run, run_all
from tools.study.variants import Variant

MADE = "study.json"
"""How the runs of a table were made: command, machine, rows that were left out."""


@dataclass
class Study:
    """One table.

    Args:
        number: of the table. title: heading of its results. variants: the rows to run. all_variants: all rows of the
            table, which the results show as far as they are finished.
        study_folder: the table's folder is made there. data_folder: where the datasets are.
        seeds: of each row. split: people to test on, "val" for choosing anything, "test" for the final table.
        epochs: passes over the real images; 0: as in the configs. options: further ``KEY VALUE`` pairs of all runs.
        jobs: runs side by side. threads: of each run; 0: not limited. command: what the user typed.
    """

    number: str
    title: str
    variants: Sequence[Variant]
    all_variants: Sequence[Variant]
    study_folder: Path
    data_folder: Path
    seeds: Sequence[int] = (0, 1, 2)
    split: str = "test"
    epochs: int = 0
    options: Sequence[str] = field(default_factory=tuple)
    jobs: int = 1
    threads: int = 1
    command: str = ""
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data_folder = Path(self.data_folder).absolute()
        self.folder = Path(self.study_folder).absolute() / f"table{self.number}"

    @property
    def environment(self) -> dict[str, str]:
        """Of every run: where the data is, and how many threads to use."""
        environment = {"FASTREID_DATASETS": str(self.data_folder), "PYTHONUNBUFFERED": "1"}
        if self.threads:
            names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
            environment |= dict.fromkeys(names, str(self.threads))
        return environment

    @property
    def results_name(self) -> str:
        """Of the results' files, without their endings."""
        return "results" if self.split == "test" else f"results_{self.split}"

    def prepare(self) -> None:
        """Makes what the runs need; rows that cannot be run go from `variants` to `left_out`, with the reason."""
        raise NotImplementedError

    def own_options(self, variant: Variant) -> dict[str, str]:
        """Keys that the kind of study sets in every run; a row's own options and the user's come on top."""
        return {}

    def tests(self, variant: Variant) -> tuple[str, ...]:
        """Datasets that a row is scored on."""
        return variant.tests

    def table(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """The rows of the results as markdown."""
        return results.markdown_table(rows, self.number)

    def runs(self) -> list[Run]:
        """Seed by seed, so that a study that is cut short has all rows."""
        return [self.run(variant, seed) for seed in self.seeds for variant in self.variants]

    def run(self, variant: Variant, seed: int) -> Run:
        """The run of a row and a seed."""
        own = {"SEED": str(seed), "TEST.EVALUATION.SAVE_FEATURES": "True", **self.own_options(variant)}
        if self.epochs:
            own["SOLVER.MAX_EPOCH"] = str(self.epochs)
        options = [text for pair in own.items() for text in pair]
        folder = self.home(variant) / f"seed{seed}"
        return Run(variant, seed, folder, (*options, *variant.options, *self.options), self.tests(variant))

    def home(self, variant: Variant) -> Path:
        """The folder of a row's runs."""
        return self.folder.parent / variant.home if variant.home else self.folder / variant.name

    def runs_on_disk(self) -> list[Run]:
        """Every run of the table that was begun, whatever rows and seeds are asked for now."""
        runs = []
        for variant in self.all_variants:
            seeds = [int(file.parent.name[4:]) for file in self.home(variant).glob(f"seed[0-9]*/{RECORD}")]
            runs += [self.run(variant, seed) for seed in sorted(seeds)]
        return runs

    def leave_out(self, variant: Variant, reason: str) -> None:
        """Takes a row out of this study, and says so."""
        print(f"left out: {variant.title}: {reason}", flush=True)
        self.left_out[variant.title] = reason
        self.variants = [other for other in self.variants if other != variant]

    def tool(self, name: str, *arguments: str) -> None:
        """Runs one of the repository's tools; its whole output goes to commands.log."""
        command = [sys.executable, str(REPOSITORY / "tools" / name), *arguments]
        run_command(command, self.folder / "commands.log", self.environment)

    def cache_or_why_not(self, config: str, options: Sequence[str]) -> str:
        """The teacher's answers on the training images of a config; returns why there can be none."""
        try:
            self.tool("cache_teacher.py", "--config-file", str(REPOSITORY / config), *options, *self.options)
        except ClearError as error:
            lines = [line for line in str(error).splitlines() if line.startswith("error: ")]
            return lines[-1].removeprefix("error: ") if lines else str(error)
        return ""

    def make(self) -> int:
        """Everything; returns how many runs failed. The results are written after each run.

        Raises:
            ClearError: none of the rows can be run.
        """
        self.prepare()
        if not self.variants:
            raise ClearError(f"nothing of table {self.number} can be run here; what is missing is said above.")
        made = json.dumps({"command": self.command, "machine": results.machine(), "left_out": self.left_out}, indent=1)
        write_atomically(self.folder / MADE, made.encode())
        return len(run_all(self.runs(), self.jobs, self.environment, self.write_tables, self.folder.parent))

    def write_tables(self) -> None:
        """results.csv, .md and .png (results_val.* for the validation people) of whatever is finished."""
        made: Mapping[str, object] = {"command": self.command, "machine": results.machine(), "left_out": self.left_out}
        if (self.folder / MADE).is_file():  # the table tells how the runs were made, not how it was written
            made = json.loads((self.folder / MADE).read_text(encoding="utf-8"))
        path = self.folder / self.results_name
        results.write_results(path, self.title, self.table, self.runs_on_disk(), **made)
