"""Studies on the rendered benchmark SynthCC-tiny: what they need on disk, and their runs in order."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

from fastreid_clip3d.config import load_config
from fastreid_clip3d.demo import Demo
from fastreid_clip3d.demo.process import run_command
from fastreid_clip3d.demo.stages import REPOSITORY
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import write_atomically
from fastreid_clip3d.study import results
from fastreid_clip3d.study.runner import RECORD, Run, run_all
from fastreid_clip3d.study.true_labels import write_true_labels
from fastreid_clip3d.study.variants import METHOD, Variant
from fastreid_clip3d.teacher.guidance import cache_folder

CACHE_KEYS = ("MODEL.TEACHER.NAME", "MODEL.TEACHER.PRETRAINED", "DATASETS.NAMES")
MADE = "study.json"
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
    skipped: dict[str, str] = field(default_factory=dict)

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
        """The run of a row and a seed."""
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
        if variant.cache:
            own["MODEL.TEACHER.CACHE_DIR"] = str(self.demo.data / variant.cache)
        options = [text for pair in own.items() for text in pair]
        return Run(
            variant,
            seed,
            self.home(variant) / f"seed{seed}",
            (*options, *variant.options, *self.options),
            variant.tests or (TEST_SETS[self.split],),
        )

    def home(self, variant: Variant) -> Path:
        """The folder of a row's runs."""
        return self.folder.parent / variant.home if variant.home else self.folder / variant.name

    def prepare(self) -> None:
        """Data and weights, and the teacher's answers for the rows that ask for them; what is there stays.

        Rows whose teacher is not at hand are taken out of the study and named in `skipped`.
        """
        self.demo.prepare()
        self._render_shape_only()
        made: dict[tuple[str, ...], str] = {}
        for variant in self.variants:
            if not variant.teacher:
                continue
            options = self._teacher_options(variant)
            if options not in made:
                made[options] = self._cache_or_why_not(options)
            if made[options]:
                print(f"left out: {variant.title}: {made[options]}", flush=True)
                self.skipped[variant.title] = made[options]
            elif variant.true_labels:
                self.write_true_labels(options, variant)
        self.variants = [variant for variant in self.variants if variant.title not in self.skipped]

    def _teacher_options(self, variant: Variant) -> tuple[str, ...]:
        """What decides a cache: the teacher, the training images and the cache's folder (the teacher's own labels)."""
        pairs = dict(zip(variant.options[::2], variant.options[1::2]))
        options = [text for key, value in pairs.items() if key in CACHE_KEYS for text in (key, value)]
        if variant.cache and not variant.true_labels:
            options += ["MODEL.TEACHER.CACHE_DIR", str(self.demo.data / variant.cache)]
        return tuple(options)

    def _cache_or_why_not(self, options: Sequence[str]) -> str:
        """Makes a cache; returns why it cannot be made."""
        try:
            self.cache_teacher([*options, *self.options])
        except ClearError as error:
            lines = [line for line in str(error).splitlines() if line.startswith("error: ")]
            return lines[-1].removeprefix("error: ") if lines else str(error)
        return ""

    def cache_teacher(self, options: Sequence[str] = ()) -> None:
        """The teacher's answers on the real training images, below the data folder or MODEL.TEACHER.CACHE_DIR."""
        tool = str(REPOSITORY / "tools" / "cache_teacher.py")
        command = [sys.executable, tool, "--config-file", str(REPOSITORY / METHOD), *options]
        run_command(command, self.folder / "commands.log", self.environment)

    def write_true_labels(self, options: Sequence[str], variant: Variant) -> Path:
        """The cache of a row with true labels, from the one of its teacher."""
        source = cache_folder(load_config(str(REPOSITORY / METHOD), [*options, *self.options]))
        return write_true_labels(source, self.demo.data / variant.cache / source.name, self.demo.data / "SynthCC-tiny")

    def _render_shape_only(self) -> None:
        if any("SynthCCTinyShapeOnly" in variant.tests for variant in self.variants):
            tool = str(REPOSITORY / "tools" / "render_people.py")
            command = [sys.executable, tool, "--root", str(self.demo.data), "--variant", "shape-only"]
            run_command(command, self.folder / "commands.log", self.environment)

    def make(self) -> int:
        """Everything; returns how many runs failed. The tables are written in any case."""
        self.prepare()
        made = json.dumps({"command": self.command, "machine": results.machine(), "left_out": self.skipped}, indent=1)
        write_atomically(self.folder / MADE, lambda stream: stream.write(made.encode()))
        failed = None
        try:
            failed = run_all(self.runs(), self.jobs, self.environment, self.write_tables, self.folder.parent)
        finally:
            if failed is None:
                self.write_tables()
        return len(failed)

    def write_tables(self) -> None:
        """results.csv, results.md and results.png (results_val.* for the validation people) of whatever is finished."""
        runs, split = self.runs_on_disk(), "" if self.split == "test" else f"_{self.split}"
        made = {"command": self.command, "machine": results.machine(), "left_out": self.skipped}
        if (self.folder / MADE).is_file():  # the table tells how the runs were made, not how it was written
            made = json.loads((self.folder / MADE).read_text(encoding="utf-8"))
        results.write_results(self.folder, self.number, self.title, runs, **made, suffix=split)

    def runs_on_disk(self) -> list[Run]:
        """Every run of the table that was begun, whatever rows and seeds are asked for now."""
        runs = []
        for variant in self.all_variants:
            folders = sorted(self.home(variant).glob(f"seed[0-9]*/{RECORD}"))
            seeds = sorted(int(file.parent.name.removeprefix("seed")) for file in folders)
            runs += [self.run(variant, seed) for seed in seeds]
        return runs
