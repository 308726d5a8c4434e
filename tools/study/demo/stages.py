"""The stages of the demo. A stage whose result exists is skipped, so that an interrupted demo continues."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import CC
from fastreid_clip3d.evaluation.ranking import evaluate
from tools.study.demo.process import run_command
from tools.study.demo.scores import TITLES, chance_rows, rows_of, seconds_per_step, what_was_learned
from tools.study.repository import REPOSITORY
from tools.study.runner import Run, run_all, training_environment
from tools.study.variants import Variant

DATASET = "SynthCCTiny"
MARKER = ".fastreid_clip3d_demo"
RUNS = {"baseline": "configs/Baselines/synthcc_without_guidance.yml", "clip3d": "configs/CLIP3D/synthcc.yml"}


class Demo:
    """Prepares data, trains a student without and with the method's guidance, and compares the two.

    The calling program must set FASTREID_DATASETS to `data`, since its own process reads datasets as well.

    Args:
        data: folder of the rendered data and pretrained weights.
        output: folder of the runs and results.
        seed: random seed of both runs.
        epochs: passes over the real images; 0: those of the configs.
        workers: rendering processes.
        options: further ``KEY VALUE`` pairs for both runs.
    """

    def __init__(
        self,
        data: Path,
        output: Path,
        seed: int = 0,
        epochs: int = 0,
        workers: int = 2,
        options: list[str] | None = None,
    ) -> None:
        self.data, self.output = Path(data), Path(output)
        self.seed, self.epochs, self.workers = seed, epochs, workers
        self.options = options or []
        self.seconds: dict[str, float] = {}
        self.environment = {"FASTREID_DATASETS": str(self.data), "PYTHONUNBUFFERED": "1"}
        self.pretrained = self.data / "mobilenetv2_imagenet.pth"

    def prepare(self) -> None:
        """Makes ImageNet weights, SynthCC-tiny and the synthetic bodies, below the data folder."""
        self.data.mkdir(parents=True, exist_ok=True)
        self._stage("ImageNet weights of the student, from an installed Python package", self._export_weights)
        self._stage("Rendering SynthCC-tiny: people who change clothes", self._render_people)
        self._stage("Rendering synthetic bodies with known shapes", self._render_bodies)

    def run(self) -> list[dict[str, Any]]:
        """Runs all stages; writes the rows of the results table and returns them.

        Raises:
            ClearError: the options are no keys and values of a config, the output folder belongs to something else, or
                a stage failed.
        """
        for name in RUNS:
            self._config(name)  # refuses a misspelt key before anything is written
        self._claim_output()
        self.prepare()
        self._stage("Scoring the untrained student", self._score_untrained)
        self._stage("Caching the teacher's answers on every training image", self._cache_teacher)
        self._stage("Training and scoring the student without and with guidance, side by side", self._train_both)
        self._stage("Comparing the scores and drawing rankings", self._compare)
        write_atomically(self.output / "stages.json", (json.dumps(self.seconds, indent=1) + "\n").encode())
        return self.rows

    def _stage(self, title: str, work: Callable[[], None]) -> None:
        print(f"\n[{len(self.seconds) + 1}] {title}", flush=True)
        start = time.perf_counter()
        work()
        self.seconds[title] = round(time.perf_counter() - start, 1)
        print(f"    {self.seconds[title]:.0f} s", flush=True)

    def _claim_output(self) -> None:
        """Accepts a new or empty folder, or that of an earlier demo with the same settings."""
        settings = json.dumps({"seed": self.seed, "epochs": self.epochs, "options": self.options}, sort_keys=True)
        marker = self.output / MARKER
        if self.output.is_dir() and any(not entry.name.startswith(".") for entry in self.output.iterdir()):
            if not marker.is_file():
                raise ClearError(
                    f"{self.output} holds files that the demo did not write. Choose another folder with --output."
                )
            if marker.read_text() != settings:
                raise ClearError(
                    f"{self.output} holds a demo with other settings ({marker.read_text()}; now {settings}). Choose "
                    "another folder with --output, or delete that one."
                )
        self.output.mkdir(parents=True, exist_ok=True)
        write_atomically(marker, settings.encode())

    def _run_verb(self, verb: str, *arguments: str) -> None:
        """Runs ``clip3d VERB ARGUMENTS`` in its own process; commands.log in the data folder gets its whole output."""
        command = [sys.executable, "-m", "fastreid_clip3d", verb, *arguments]
        run_command(command, self.data / "commands.log", self.environment)

    def _export_weights(self) -> None:
        from fastreid_clip3d.modeling.backbones.pretrained import export_mobilenetv2_weights

        if not self.pretrained.is_file():
            export_mobilenetv2_weights(self.pretrained)

    def _render_people(self) -> None:
        self._run_verb("render-people", "--root", str(self.data), "--workers", str(self.workers))

    def _render_bodies(self) -> None:
        self._run_verb(
            "render-bodies",
            "--output",
            str(self.data / "SyntheticBodies"),
            "--poses-per-body",
            "4",
            "--size",
            "128",
            "64",
        )

    def _run_options(self, name: str) -> tuple[str, ...]:
        options = {
            "MODEL.BACKBONE.PRETRAIN_PATH": str(self.pretrained),
            "OUTPUT_DIR": str(self.output / name),
            "SEED": str(self.seed),
            "WRITE_PERIOD": "20",
            "TEST.EVALUATION.SAVE_FEATURES": "True",
        }
        if self.epochs:
            options["SOLVER.MAX_EPOCH"] = str(self.epochs)
        return (*(text for pair in options.items() for text in pair), *self.options)

    def _config(self, name: str) -> Any:
        return load_config(str(REPOSITORY / RUNS[name]), self._run_options(name))

    def _features_file(self, name: str) -> Path:
        return self.output / name / "evaluation" / f"{DATASET}_features.npz"

    def _train_both(self) -> None:
        """Trains both students at the same time where there are two cores: faster than one after the other on both.

        Raises:
            ClearError: a training failed; names its log.
        """
        cores = os.cpu_count() or 1
        jobs = min(len(RUNS), cores)
        failed = run_all(self.runs(), jobs, training_environment(self.data, cores // jobs), folder=self.output)
        if failed:
            raise ClearError("; ".join(f"{run.name} {run.record()['failure']}" for run in failed))

    def runs(self) -> list[Run]:
        """The trainings of both students."""
        return [
            Run(Variant(name, TITLES[name], config), self.seed, self.output / name, self._run_options(name), (DATASET,))
            for name, config in RUNS.items()
        ]

    def _cache_teacher(self) -> None:
        self._run_verb("cache-teacher", "--config-file", str(REPOSITORY / RUNS["clip3d"]), *self._run_options("clip3d"))

    def _score_untrained(self) -> None:
        from fastreid_clip3d.engine.trainer import CLIP3DTrainer

        if self._features_file("untrained").is_file():
            return
        cfg = load_config(str(REPOSITORY / RUNS["baseline"]), self._run_options("untrained"))
        CLIP3DTrainer.test(cfg, CLIP3DTrainer.build_model(cfg))

    def _compare(self) -> None:
        from fastreid_clip3d.evaluation.features_file import read_features
        from fastreid_clip3d.visualization.ranking import RankedModel, choose_queries, ranking_sheet

        features = {name: read_features(self._features_file(name)) for name in ("untrained", *RUNS)}
        steps = {name: seconds_per_step(self.output / name / "metrics.json") for name in RUNS}
        self.rows = chance_rows(*features["untrained"], seed=self.seed)
        for name, sides in features.items():
            self.rows += rows_of(name, *sides, seconds=steps.get(name), seed=self.seed)
        self.learned = what_was_learned(features["baseline"], features["clip3d"])
        (self.output / "results.json").write_text(json.dumps(self.rows, indent=1) + "\n")

        query, gallery = self._named(*features["baseline"])
        queries = choose_queries(evaluate(query, gallery, [CC])[CC.name].queries, query.pids, 4, self.seed)
        models = [RankedModel(name, *self._named(*features[name])) for name in RUNS]
        ranking_sheet(models, CC, queries, self.output / "ranking.png")

    def _named(self, query: Any, gallery: Any) -> tuple[Any, Any]:
        """The same features; the names are the paths of the images."""
        from fastreid_clip3d.data.datasets import build_dataset

        dataset = build_dataset(DATASET)
        return tuple(
            dataclasses.replace(side, names=tuple(record[0] for record in records))
            for side, records in ((query, dataset.query), (gallery, dataset.gallery))
        )
