"""The table of the demo: chance, the untrained student, the baseline and CLIP3DReID, by protocol."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fastreid_clip3d.evaluation.protocols import CC, GENERAL
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate
from fastreid_clip3d.evaluation.reliance import person_scores

PROTOCOLS = (GENERAL, CC)
CHANCE_DRAWS = 10
TITLES = {
    "chance": "chance",
    "untrained": "untrained student (ImageNet)",
    "baseline": "the student without guidance",
    "clip3d": "CLIP3DReID",
}


def rows_of(
    model: str, query: LabelledFeatures, gallery: LabelledFeatures, seconds: float | None, seed: int
) -> list[dict[str, Any]]:
    """One row per protocol: model, protocol, mAP and Rank-1 in percent, seconds_per_step, seed."""
    rows = []
    for name, result in evaluate(query, gallery, PROTOCOLS).items():
        scores = result.percentages()
        rows.append(
            {
                "model": model,
                "protocol": name,
                "mAP": scores["mAP"],
                "Rank-1": scores["Rank-1"],
                "seconds_per_step": seconds,
                "seed": seed,
            }
        )
    return rows


def chance_rows(query: LabelledFeatures, gallery: LabelledFeatures, seed: int) -> list[dict[str, Any]]:
    """The rows of random features; the mean of several draws."""
    generator = torch.Generator().manual_seed(seed)

    def guessed(side: LabelledFeatures) -> LabelledFeatures:
        return dataclasses.replace(side, features=torch.randn(len(side), 32, generator=generator))

    draws = [rows_of("chance", guessed(query), guessed(gallery), None, seed) for _ in range(CHANCE_DRAWS)]
    return [
        {**rows[0], **{metric: statistics.fmean(row[metric] for row in rows) for metric in ("mAP", "Rank-1")}}
        for rows in zip(*draws)
    ]


def what_was_learned(
    baseline: tuple[LabelledFeatures, LabelledFeatures], method: tuple[LabelledFeatures, LabelledFeatures]
) -> str:
    """One sentence: how far above chance each model finds people by their clothes, and without them.

    Args:
        baseline, method: query and gallery.
    """
    clothes, body = zip(*(_clothes_and_body(*sides) for sides in (baseline, method)))
    return (
        f"What was learned: clothes are worth {clothes[0]:.1f} points above chance without guidance and "
        f"{clothes[1]:.1f} with it; skin, hair and shape, which stay when clothes change, are worth {body[0]:.2f} and "
        f"{body[1]:.2f}."
    )


def _clothes_and_body(query: LabelledFeatures, gallery: LabelledFeatures) -> tuple[float, float]:
    """Percent above chance of a match in the same clothes minus one in other clothes, and of one in other clothes."""
    scores = person_scores(query, gallery)
    same, other = 100 * scores.means(np.ones((1, len(scores.people)), dtype=np.int64))[:, 0]
    return float(same - other), float(other)


def seconds_per_step(metrics_file: Path) -> float:
    """Median seconds of a training step, loading included, from a run's metrics.json."""
    lines = [json.loads(line) for line in metrics_file.read_text().splitlines() if line.strip()]
    return round(statistics.median(line["time"] for line in lines if "time" in line), 4)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints the rows, one line per model."""
    table = Table(title="SynthCC-tiny", title_justify="left")
    table.add_column("model", no_wrap=True)
    for protocol in PROTOCOLS:
        table.add_column(f"{protocol.name} mAP", justify="right")
        table.add_column(f"{protocol.name} Rank-1", justify="right")
    table.add_column("s per step", justify="right")
    for model, title in TITLES.items():
        by_protocol = {row["protocol"]: row for row in rows if row["model"] == model}
        if not by_protocol:
            continue
        cells = [f"{by_protocol[protocol.name][metric]:.1f}" for protocol in PROTOCOLS for metric in ("mAP", "Rank-1")]
        seconds = next(iter(by_protocol.values()))["seconds_per_step"]
        table.add_row(title, *cells, "" if seconds is None else f"{seconds:.2f}")
    Console().print(table)
