"""Writes what ``clip3d reliance`` found: the bar chart, the table and the numbers."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from fastreid_clip3d.common.figures import save_figure
from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.common.json_file import write_json
from fastreid_clip3d.evaluation.reliance import CONFIDENCE, PARTS, Reliance
from fastreid_clip3d.inference.reliance import SET, RelianceReport

COLOURS = {"clothes": "#4477aa", "skin and hair": "#ccbb44", "shape": "#228833"}


def text_of(report: RelianceReport) -> str:
    """Sentence and tables in Markdown."""
    reliance = report.reliance
    headers = ("rendering", *(f"{name} {what}" for name in ("general", "SC", "CC") for what in ("mAP", "chance")))
    rows = [
        (variant, *("-" if value is None else f"{value:.2f}" for own in by_name.values() for value in own.values()))
        for variant, by_name in report.scores.items()
    ]
    return (
        f"{report.sentence}\n\n{reliance.table()}\n\n"
        f"Percent, {SET}, {reliance.people} people; chance of a single match {100 * reliance.chance:.2f}. Intervals: "
        f"{CONFIDENCE:.0%}, {reliance.resamples:,} resamples of people, seed {reliance.seed}.\n\n"
        f"{tabulate(rows, headers, tablefmt='pipe', disable_numparse=True)}\n"
    )


def draw_reliance(report: RelianceReport, output: str | Path) -> Path:
    """Draws one bar per part, with its interval and share; returns `output`."""
    from matplotlib.figure import Figure

    reliance: Reliance = report.reliance
    figure = Figure(figsize=(7, 2.6), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    for place, name in enumerate(PARTS):
        part, share = reliance.parts[name], reliance.shares[name]
        value, low, high = (100 * (number or 0.0) for number in (part.value, part.low, part.high))
        axes.barh(place, value, color=COLOURS[name])
        axes.plot([low, high], [place, place], color="0.15", linewidth=1.5)
        words = f"{value:.2f}" + ("" if share.value is None else f" ({share.text(0)[0]} %)")
        axes.annotate(
            words, (max(high, value, 0.0), place), (6, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_yticks(range(len(PARTS)), PARTS)
    axes.invert_yaxis()
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.margins(x=0.2)
    axes.set_xlabel("score of a single match above chance, percent (share of the sum)", fontsize=9)
    axes.set_title(f"What {report.model} matches, on {SET}", fontsize=10, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, output)


def write_reliance(folder: Path, report: RelianceReport) -> list[Path]:
    """Writes report.json, table.md and reliance.png; returns their paths."""
    numbers, table = folder / "report.json", folder / "table.md"
    write_json(str(numbers), report.as_dict())
    write_atomically(table, text_of(report).encode())
    return [numbers, table, draw_reliance(report, folder / "reliance.png")]
