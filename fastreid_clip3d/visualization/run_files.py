"""The features that a run's evaluation left in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import read_features
from fastreid_clip3d.evaluation.ranking import LabelledFeatures

ENDING = "_features.npz"


def features_files(run: str | Path) -> dict[str, Path]:
    """The features files of a run folder by dataset, sorted; empty where it has none."""
    return {path.name[: -len(ENDING)]: path for path in sorted(Path(run).glob(f"evaluation/*{ENDING}"))}


def run_features(run: str | Path, dataset: str = "") -> tuple[LabelledFeatures, LabelledFeatures]:
    """Query and gallery of a run.

    Args:
        run: a run folder, or a features file.
        dataset: the test set, where the run has several.

    Raises:
        ClearError: no such folder, no features in it, or features of several test sets and no `dataset`.
    """
    run = Path(run)
    if run.is_file() and run.suffix == ".npz":
        return read_features(run)
    if run.is_file():
        run = run.parent
    if not run.is_dir():
        raise ClearError(f"{run}: no such run folder.")
    found = features_files(run)
    if not found:
        raise ClearError(
            f"{run} has no evaluation/*{ENDING}. Make one: clip3d train --config-file {run / 'config.yaml'} "
            f"--eval-only MODEL.WEIGHTS {run / 'model_final.pth'} TEST.EVALUATION.SAVE_FEATURES True"
        )
    if dataset and dataset not in found:
        raise ClearError(f"{run} has no features of {dataset!r}, only of {', '.join(found)}.")
    if not dataset and len(found) > 1:
        raise ClearError(f"{run} has features of {', '.join(found)}; choose one with --data.")
    return read_features(found[dataset or next(iter(found))])


def run_title(run: str | Path) -> str:
    """A run's folder name."""
    return _run_folder(run).name


def run_titles(runs: Sequence[str | Path]) -> list[str]:
    """A different title for each run: its folder's name, and as many parent folders as tell equal names apart.

    >>> run_titles(["logs/full/seed0", "logs/without_ot/seed0"])
    ['full/seed0', 'without_ot/seed0']
    """
    folders = [_run_folder(run) for run in runs]
    for count in range(1, max((len(folder.parts) for folder in folders), default=1) + 1):
        titles = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(titles)) == len(titles):
            return titles
    return [f"{Path(run).name} ({number})" for number, run in enumerate(runs, 1)]  # the same run twice


def _run_folder(run: str | Path) -> Path:
    path = Path(run).resolve()
    folder = path.parent if path.is_file() else path
    return folder.parent if path.is_file() and folder.name == "evaluation" else folder
