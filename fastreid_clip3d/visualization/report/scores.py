"""A run's scores by protocol: from metrics.json, or else from its features files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import read_features
from fastreid_clip3d.evaluation.protocols import CC, GENERAL, SC
from fastreid_clip3d.evaluation.ranking import evaluate
from fastreid_clip3d.visualization.report.record import RunRecord
from fastreid_clip3d.visualization.run_files import features_files

METRICS = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP", "valid_queries")


@dataclass(frozen=True)
class ScoreTable:
    """One test set's scores: by protocol the metrics in percent (``valid_queries`` is a count), and their source."""

    dataset: str
    source: str
    protocols: dict[str, dict[str, float]]


def score_tables(record: RunRecord) -> list[ScoreTable]:
    """One table per test set. A damaged features file is noted in the record."""
    written = written_scores(record)
    tables = list(written.values())
    for dataset, path in features_files(record.folder).items():
        if dataset in written:
            continue
        try:
            tables.append(scores_of_features(dataset, path))
        except ClearError as error:
            record.notes.append(f"No scores of {dataset}: {error}")
    return tables


def written_scores(record: RunRecord) -> dict[str, ScoreTable]:
    """The last evaluation of metrics.json: keys ``<dataset>/<protocol>/<metric>``."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    iterations: dict[str, int] = {}
    for name, series in record.series.items():
        parts = name.split("/")
        if len(parts) < 3 or parts[-1] not in METRICS or not math.isfinite(series.last()):
            continue
        dataset, protocol, metric = parts[-3:]
        found.setdefault(dataset, {}).setdefault(protocol, {})[metric] = series.last()
        iterations[dataset] = max(iterations.get(dataset, 0), series.iterations[-1])
    return {
        dataset: ScoreTable(dataset, f"written by the run at step {iterations[dataset]}", protocols)
        for dataset, protocols in found.items()
    }


def scores_of_features(dataset: str, path: Path) -> ScoreTable:
    """Scores of a features file by the standard protocols."""
    query, gallery = read_features(path)
    protocols = (GENERAL,) if query.clothes_ids is None else (CC, SC, GENERAL)
    results = evaluate(query, gallery, protocols)
    numbers = {
        name: {metric: float(value) for metric, value in result.percentages().items() if value is not None}
        for name, result in results.items()
    }
    return ScoreTable(dataset, f"scored for this page from evaluation/{path.name}, by the standard protocols", numbers)
