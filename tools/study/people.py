"""How much a gain depends on who is tested: a bootstrap over the test people, beside the deviation over the seeds.

Shape letters: S seeds, V queries with a match, P people, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastreid_clip3d.evaluation.features_file import read_features
from fastreid_clip3d.evaluation.protocols import CC
from fastreid_clip3d.evaluation.ranking import evaluate
from tools.study.results import baseline_of
from tools.study.runner import Run

RESAMPLES = 2000
CONFIDENCE = 0.95


def interval_lines(runs: Sequence[Run]) -> list[str]:
    """One line per row and test set: the gain in CC mAP over the row without all three designs, and its interval.

    The seeds are those that both rows have finished. Rows without CC queries, or without a baseline, have no line.
    """
    by_row: dict[tuple[str, str], dict[int, Path]] = {}
    titles: dict[str, str] = {}
    for run in runs:
        titles[run.variant.name] = run.variant.title
        for dataset in run.tests if run.is_done() else ():
            by_row.setdefault((run.variant.name, dataset), {})[run.seed] = features_file(run.folder, dataset)
    lines = []
    for (variant, dataset), files in by_row.items():
        baseline = baseline_of(variant, titles)
        others = by_row.get((baseline, dataset), {})
        seeds = sorted(files.keys() & others.keys())
        if variant == baseline or not seeds or not all(f[s].is_file() for f in (files, others) for s in seeds):
            continue
        own, people = _scores([files[seed] for seed in seeds])
        other, _ = _scores([others[seed] for seed in seeds])
        if not people.size:
            continue
        gain, low, high = (100 * value for value in interval(own.mean(0) - other.mean(0), people))
        lines.append(
            f"{titles[variant]}, tested on {dataset}, {len(seeds)} seeds: {gain:+.2f}, "
            f"{CONFIDENCE:.0%} interval {low:+.2f} to {high:+.2f} over {len(np.unique(people))} people"
        )
    return lines


def features_file(folder: Path, dataset: str) -> Path:
    """Where a run that was tested on `dataset` keeps its features."""
    return folder / "evaluation" / f"{dataset}_features.npz"


def _scores(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """CC average precisions, float64 [S, V], and the person of each query, int64 [V]."""
    found, people = [], np.zeros(0, dtype=np.int64)
    for file in files:
        query, gallery = read_features(file)
        if query.clothes_ids is None:
            return np.zeros((0, 0)), people
        result = evaluate(query, gallery, [CC])[CC.name]
        found.append(result.average_precisions)
        people = query.pids[result.queries]
    return np.stack(found), people


def interval(
    values: np.ndarray, people: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """The mean of `values` [V], and the percentile interval of a bootstrap that draws people with replacement.

    Args:
        people: the person of each value, int64 [V]. A person is drawn with all values.

    >>> interval(np.array([1.0, 1.0, 1.0]), np.array([4, 4, 9]))
    (1.0, 1.0, 1.0)
    """
    _, person = np.unique(people, return_inverse=True)
    sums, counts = np.bincount(person, weights=values), np.bincount(person)
    number = len(counts)
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=resamples)
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(values.mean()), float(low), float(high)
