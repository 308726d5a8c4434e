"""The recipe of the shipped teacher, from rendered people to a folder that open_clip loads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.teacher.sources import EMBEDDED_FOLDER
from tools.assets.teacher.export import WEIGHTS_NAME, export
from tools.assets.teacher.model import imagenet_weights
from tools.assets.teacher.people import KINDS, PeopleSettings, make_pictures
from tools.assets.teacher.scores import Report, evaluate
from tools.assets.teacher.settings import TrainingSettings
from tools.assets.teacher.training import TeacherTraining

HELD_OUT_SEED = 1_000_003
"""Added to the seed for the people on whom the teacher is measured."""
REPORT_NAME = "report.json"


@dataclass(frozen=True)
class Stage:
    """One training.

    people: clothed people, two pictures each; views: precomputed views per picture (0: new views in each step);
    warmup: steps over which the learning rate rises.
    """

    people: int
    steps: int
    views: int = 0
    learning_rate: float = 1e-3
    warmup: int = 100


@dataclass(frozen=True)
class TeacherRecipe:
    """All settings of the shipped teacher. Each stage starts from the weights of the one before."""

    stages: tuple[Stage, ...] = (Stage(51200, 951, learning_rate=2e-3),)
    grey: int = 24000
    held_out: int = 384
    batch: int = 384
    seed: int = 0


class MadeTeacher(NamedTuple):
    """folder: for ``local-dir:``; report: accuracies on held-out people; seconds: of training, without rendering."""

    folder: Path
    report: Report
    seconds: float


def make_teacher(
    recipe: TeacherRecipe,
    output: str | Path,
    visual_weights: str | Path = "",
    workers: int = 1,
    device: str = "cpu",
    progress: bool = True,
) -> MadeTeacher:
    """Renders people, trains, measures on other people and saves. A stage that was interrupted continues."""
    output = Path(output)
    start_from, seconds = "", 0.0
    for number, stage in enumerate(recipe.stages):
        settings = TrainingSettings(
            steps=stage.steps,
            batch=recipe.batch,
            views=stage.views,
            learning_rate=stage.learning_rate,
            warmup=stage.warmup,
            seed=recipe.seed + number,
        )
        people = PeopleSettings(clothed=stage.people, grey=recipe.grey, seed=recipe.seed)
        pictures = make_pictures(people, output, workers, progress)
        folder = output / f"stage-{number}"
        weights = "" if start_from else visual_weights or imagenet_weights()
        training = TeacherTraining(settings, pictures, folder, weights, device, start_from)
        model = training.run(progress=progress)
        seconds += training.seconds
        start_from = export(model, settings, pictures, folder / "model") / WEIGHTS_NAME
    others = PeopleSettings(
        clothed=min(recipe.held_out, recipe.stages[-1].people),
        grey=min(recipe.held_out, recipe.grey),
        seed=recipe.seed + HELD_OUT_SEED,
    )
    held_out = make_pictures(others, output, workers, progress)
    folder = export(model, settings, pictures, output / "model")
    report = evaluate(model, settings, held_out, KINDS)
    record = {
        "recipe": asdict(recipe),
        "training": asdict(settings),
        "seconds": round(seconds, 1),
        "report": asdict(report),
    }
    write_atomically(folder / REPORT_NAME, (json.dumps(record, indent=1) + "\n").encode())
    return MadeTeacher(folder, report, seconds)


def install(folder: str | Path) -> Path:
    """Copies a finished teacher into the package.

    Raises:
        ClearError: the package's folder cannot be written.
    """
    for path in Path(folder).iterdir():
        if not path.name.startswith("."):
            write_atomically(EMBEDDED_FOLDER / path.name, path.read_bytes())
    return EMBEDDED_FOLDER
