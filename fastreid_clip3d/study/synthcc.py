"""Studies on the rendered benchmark SynthCC-tiny: what they need on disk, and their runs in order."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

from fastreid_clip3d.demo import Demo
from fastreid_clip3d.demo.process import run_command
from fastreid_clip3d.demo.stages import REPOSITORY
from fastreid_clip3d.study import results
from fastreid_clip3d.study.runner import RECORD, Run, run_all
from fastreid_clip3d.study.variants import METHOD, Variant

TEST_SETS = {"test": "SynthCCTiny", "val": "SynthCCTinyVal"}


@dataclass
class SynthCCStudy:
    """One table on SynthCC-tiny.

    Args:
        number: of the table. title: heading of its results. variants: the rows to run. all_variants: all rows of the
            table, which the results show as far as they are finished.
        study_folder: the table's folder is made there. data_folder: rendered data, ImageNet weights, teacher cache.
        seeds: of each variant. split: "val" for choosing anything, "test" for the final table.
        epochs: passes over the real images; 0: as in the configs. options: further ``KEY VALUE`` pairs of all runs.
        jobs: runs side by side. threads: of each run.
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

    def __post_init__(self) -> None:
        self.folder = Path(self.study_folder).absolute() / f"table{self.number}"
        self.demo = Demo(Path(self.data_folder).absolute(), self.folder)  # names the data folder in the environment

    @property
    def environment(self) -> dict[str, str]:
        """Of every run: where the data is, and how many threads to use."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self.threads))
        return {**self.demo.environment, **threads}

    def runs(self) -> list[Run]:
        """Seed by seed, so that a study that is cut short has all variants."""
        return [self.run(variant, seed) for seed in self.seeds for variant in self.variants]

    def run(self, variant: Variant, seed: int) -> Run:
        own = {
            "MODEL.BACKBONE.PRETRAIN_PATH": str(self.demo.pretrained),
            "SEED": str(seed),
            "WRITE_PERIOD": "20",
            "TEST.EVALUATION.SAVE_FEATURES": "True",
            "SOLVER.CHECKPOINT_PERIOD": "1",
            "DATALOADER.NUM_WORKERS": "1" if self.threads == 1 else "2",
        }
        if self.epochs:
            own["SOLVER.MAX_EPOCH"] = str(self.epochs)
        options = [text for pair in own.items() for text in pair]
        return Run(
            variant,
            seed,
            self.folder / variant.name / f"seed{seed}",
            (*options, *variant.options, *self.options),
            (TEST_SETS[self.split],),
        )

    def prepare(self) -> None:
        """Data and weights, and the teacher's answers for the variants that ask for them; what is there stays."""
        self.demo.prepare()
        if any(variant.teacher for variant in self.variants):
            self.cache_teacher(self.options)

    def cache_teacher(self, options: Sequence[str] = ()) -> None:
        """The teacher's answers on the real training images, below the data folder or MODEL.TEACHER.CACHE_DIR."""
        tool = str(REPOSITORY / "tools" / "cache_teacher.py")
        command = [sys.executable, tool, "--config-file", str(REPOSITORY / METHOD), *options]
        run_command(command, self.folder / "commands.log", self.environment)

    def make(self) -> int:
        """Everything; returns how many runs failed. The tables are written in any case."""
        self.prepare()
        failed = None
        try:
            failed = run_all(self.runs(), self.jobs, self.environment, self.write_tables)
        finally:
            if failed is None:
                self.write_tables()
        return len(failed)

    def write_tables(self) -> None:
        """results.csv, results.md and results.png of whatever is finished."""
        results.write_results(self.folder, self.number, self.title, self.runs_on_disk(), self.command)

    def runs_on_disk(self) -> list[Run]:
        """Every run of the table that was begun, whatever rows and seeds are asked for now."""
        runs = []
        for variant in self.all_variants:
            folders = sorted((self.folder / variant.name).glob(f"seed[0-9]*/{RECORD}"))
            seeds = sorted(int(file.parent.name.removeprefix("seed")) for file in folders)
            runs += [self.run(variant, seed) for seed in seeds]
        return runs
