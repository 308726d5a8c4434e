"""Compares the shipped body models with the survey: the population table of docs/bodies.md."""

from __future__ import annotations

import pandas as pd
import torch
from tabulate import tabulate

from fastreid_clip3d.body.model import load_body_model
from fastreid_clip3d.body.sampling import sample_betas
from tools.assets.bodies.survey import (
    COLUMNS,
    LENGTHS,
    Statistics,
    body_mass_index,
    measure_as_survey,
    read_statistics,
    summarise_bmi,
)

NUM_BODIES = 2000
SEED = 123
HEADERS = (
    "measurement", "mean", "ours", "error %", "deviation", "ours", "error %", "r with mass", "ours", "least", "ours",
    "most", "ours",
)  # fmt: skip
"""The columns without a name of their own show the survey's value, "ours" the value of our bodies."""


def measure_shipped(sex: str, count: int = NUM_BODIES, seed: int = SEED) -> pd.DataFrame:
    """The measurements of `count` bodies drawn from the embedded model of one sex, one row per body."""
    model = load_body_model(gender=sex)
    parts = []
    with torch.no_grad():
        for betas in torch.from_numpy(sample_betas(count, seed, model.num_betas)).split(250):
            vertices = model.shape(betas)
            parts.append(measure_as_survey(vertices, model.joints(vertices), model.faces, model.weights, sex))
    return pd.concat(parts, ignore_index=True)


def compare(got: pd.DataFrame, statistics: Statistics) -> pd.DataFrame:
    """One row per measurement, the columns of `HEADERS`; the means of `LENGTHS` are not comparable and stay empty."""
    mean, deviation = got.mean().to_numpy(), got.std().to_numpy()
    table = pd.DataFrame(
        {
            "mean": statistics.mean,
            "our mean": mean,
            "mean error": 100 * (mean / statistics.mean - 1),
            "deviation": statistics.deviation,
            "our deviation": deviation,
            "deviation error": 100 * (deviation / statistics.deviation - 1),
            "correlation": statistics.correlation[list(COLUMNS).index("mass_root")],
            "our correlation": got.corr()["mass_root"].to_numpy(),
            "least": statistics.least,
            "our least": got.min().to_numpy(),
            "most": statistics.most,
            "our most": got.max().to_numpy(),
        },
        index=list(COLUMNS),
    )
    table.loc[list(LENGTHS), ["mean", "our mean", "mean error", "least", "our least", "most", "our most"]] = None
    return table


def share_outside(got: pd.DataFrame, statistics: Statistics) -> float:
    """The share of bodies of which a measurement, lengths apart, is less or more than the survey ever saw."""
    outside = (got < statistics.least) | (got > statistics.most)
    return float(outside[[name for name in COLUMNS if name not in LENGTHS]].any(axis=1).mean())


def population_table(markdown: bool = False, count: int = NUM_BODIES) -> str:
    """Both sexes' tables with a line on body-mass index and on bodies outside the survey, as text or Markdown."""
    parts = []
    for sex, statistics in read_statistics().items():
        got = measure_shipped(sex, count)
        table = compare(got, statistics).astype(object)
        rows = table.where(table.notna(), None).to_numpy().tolist()
        rows = [[name.replace("_", " "), *values] for name, values in zip(COLUMNS, rows)]
        digits = ("", ".1f", ".1f", "+.1f", ".1f", ".1f", "+.1f", ".2f", ".2f", ".0f", ".0f", ".0f", ".0f")
        title = f"{sex}, {statistics.count:,} surveyed, {count:,} drawn"
        body = tabulate(rows, HEADERS, tablefmt="pipe" if markdown else "simple", floatfmt=digits, missingval="")
        theirs, ours = statistics.bmi, summarise_bmi(body_mass_index(got["mass_root"], got["stature"]))
        parts += [
            f"**{title}**" if markdown else title,
            body,
            f"Body-mass index: survey {_words(theirs)}; ours {_words(ours)}. "
            f"Bodies outside what the survey saw: {100 * share_outside(got, statistics):.2f} %.",
        ]
    return "\n\n".join(parts)


def _words(bmi: dict[str, float]) -> str:
    return (
        f"{bmi['mean']:.1f} +- {bmi['deviation']:.1f}, skew {bmi['skew']:.2f}, {bmi['least']:.1f} to {bmi['most']:.1f}"
    )
