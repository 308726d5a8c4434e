"""A study makes one table: this class knows its rows, its seeds, the folders of its runs, and its results."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from tools.study import results
from tools.study.demo.process import run_command
from tools.study.people import interval_lines
from tools.study.repository import REPOSITORY
from tools.study.runner import RECORD, Run, run_all, training_environment
from tools.study.variants import Variant

MADE = "study.json"
"""Holds the command, the machine and the rows that were left out."""


@dataclass
class Study(ABC):
    """One table.

    The calling program must set FASTREID_DATASETS to `data_folder`, since its own process reads datasets as well.

    Args:
        number: the table's number in the paper.
        title: heading of its results.
        variants: the rows to run.
        all_variants: all rows of the table; the results show those that are finished.
        study_folder: the study creates the table's folder there.
        data_folder: folder of the datasets.
        seeds: random seeds of each row.
        split: people to test on: "val" to choose settings, "test" for the final table.
        epochs: passes over the real images; 0: those of the configs.
        options: further ``KEY VALUE`` pairs of all runs.
        jobs: runs at a time.
        threads: threads of each run; 0: no limit.
        command: the command that the user typed.
    """

    number: str
    title: str
    variants: Sequence[Variant]
    all_variants: Sequence[Variant]
    study_folder: Path
    data_folder: Path
    seeds: Sequence[int] = (0, 1, 2)
    split: Literal["test", "val"] = "test"
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
        """Variables of each run: the folder of the datasets and the number of threads."""
        return training_environment(self.data_folder, self.threads)

    @property
    def results_name(self) -> str:
        """Name of the files of the results, without an ending."""
        return "results" if self.split == "test" else f"results_{self.split}"

    @abstractmethod
    def prepare(self) -> None:
        """Makes the data that the runs need. Rows that cannot run move from `variants` to `left_out`."""

    def own_options(self, variant: Variant) -> dict[str, str]:
        """Keys and values for every run. The options of the row and of the user replace them."""
        return {}

    def tests(self, variant: Variant) -> tuple[str, ...]:
        """Datasets that score a row."""
        return variant.tests

    def table(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """The rows of the results as markdown."""
        return results.markdown_table(rows, self.number)

    def runs(self) -> list[Run]:
        """All runs, seed by seed: a study that ends early then has every row for the first seeds."""
        return [self.run(variant, seed) for seed in self.seeds for variant in self.variants]

    def run(self, variant: Variant, seed: int) -> Run:
        """The run of one row with one seed."""
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
        """Every run of the table that has a folder, also of rows and seeds that this study does not ask for."""
        runs = []
        for variant in self.all_variants:
            names = [file.parent.name.removeprefix("seed") for file in self.home(variant).glob(f"seed[0-9]*/{RECORD}")]
            seeds = [int(name) for name in names if name.isdecimal()]  # a copy such as seed0.bak is no run of the study
            runs += [self.run(variant, seed) for seed in sorted(seeds)]
        return runs

    def leave_out(self, variant: Variant, reason: str) -> None:
        """Removes a row from this study and prints the reason."""
        print(f"left out: {variant.title}: {reason}", flush=True)
        self.left_out[variant.title] = reason
        self.variants = [other for other in self.variants if other != variant]

    def run_verb(self, verb: str, *arguments: str) -> None:
        """Runs ``clip3d VERB ARGUMENTS`` in its own process; its whole output goes to commands.log."""
        command = [sys.executable, "-m", "fastreid_clip3d", verb, *arguments]
        run_command(command, self.folder / "commands.log", self.environment)

    def cache_or_why_not(self, config: str, options: Sequence[str]) -> str:
        """Caches the teacher's answers on the training images of a config; returns the reason of a failure, else ""."""
        try:
            self.run_verb("cache-teacher", "--config-file", str(REPOSITORY / config), *options, *self.options)
        except ClearError as error:
            lines = [line for line in str(error).splitlines() if line.startswith("error: ")]
            return lines[-1].removeprefix("error: ") if lines else str(error)
        return ""

    def make(self) -> int:
        """Prepares the data, runs all rows and writes the results after each run; returns how many runs failed.

        Raises:
            ClearError: no row can run.
        """
        self.prepare()
        if not self.variants:
            raise ClearError(f"No row of table {self.number} can run here. The lines above say what is missing.")
        made = json.dumps({"command": self.command, "machine": results.machine(), "left_out": self.left_out}, indent=1)
        write_atomically(self.folder / MADE, made.encode())
        return len(run_all(self.runs(), self.jobs, self.environment, self.write_tables, self.folder.parent))

    def write_tables(self) -> None:
        """Writes results.csv, .md and .png (results_val.* for the validation people) of the finished runs."""
        made: Mapping[str, object] = {"command": self.command, "machine": results.machine(), "left_out": self.left_out}
        if (self.folder / MADE).is_file():  # the results name the command of the runs, not that of the table
            made = json.loads((self.folder / MADE).read_text(encoding="utf-8"))
        path = self.folder / self.results_name
        runs = self.runs_on_disk()
        results.write_results(path, self.title, self.table, runs, **made, intervals=interval_lines(runs))
