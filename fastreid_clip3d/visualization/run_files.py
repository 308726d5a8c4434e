"""The features that a run's evaluation left in its folder."""

from __future__ import annotations

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
    path = Path(run).resolve()
    return path.name if path.is_dir() else path.parent.name
