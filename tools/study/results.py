"""Results of a study: a CSV file with a line per run and protocol, a markdown table, and a plot."""

from __future__ import annotations

import csv
import io
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from tools.study import paper
from tools.study.runner import Run

COLUMNS = (
    "variant", "title", "seed", "dataset", "protocol", "mAP", "Rank-1", "Rank-5", "Rank-10", "mINP", "minutes",
    "settings",
)  # fmt: skip
SHOWN = ("mAP", "Rank-1")


def rows_of(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One row per finished run, test set and protocol; numbers in percent."""
    rows = []
    for run in runs:
        record = run.record()
        for dataset in run.tests:
            for protocol, values in record.get("scores", {}).get(dataset, {}).items():
                row = {
                    "variant": run.variant.name,
                    "title": run.variant.title,
                    "seed": run.seed,
                    "dataset": dataset,
                    "protocol": protocol,
                    "minutes": round(record["seconds"] / 60, 2),
                    "settings": record["settings"],
                }
                rows.append({**row, **{name: values[name] for name in COLUMNS if name in values}})
    return rows


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes all rows; a metric without a value is an empty field."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode())


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Reads a file of :func:`write_csv`.

    Raises:
        ClearError: there is no such file, or it has other columns or values.
    """
    texts = ("variant", "title", "dataset", "protocol", "settings")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ClearError(f"{path} has the columns {reader.fieldnames}; needed: {', '.join(COLUMNS)}.")
            return [
                {
                    key: value if key in texts else int(value) if key == "seed" else float(value) if value else None
                    for key, value in row.items()
                }
                for row in reader
            ]
    except (OSError, ValueError, TypeError) as error:
        raise ClearError(f"{path} cannot be read as results of a study: {error}") from error


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); the deviation of a single value is None."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def text_of(values: Sequence[float]) -> str:
    """``mean ± standard deviation``; the mean for one value, a dash for none. Two decimals below ten, else one."""
    if not values:
        return "-"
    mean, deviation = mean_and_deviation(values)
    decimals = 2 if abs(mean) < 10 else 1
    return f"{mean:.{decimals}f}" + ("" if deviation is None else f" ± {deviation:.{decimals}f}")


def gains(
    rows: Sequence[Mapping[str, Any]], variant: str, over: str, protocol: str, metric: str = "mAP"
) -> list[float]:
    """The metric of `variant` minus that of `over`, for each seed and dataset that both have."""

    def by_seed(name: str) -> dict[tuple[int, str], float]:
        return {
            (row["seed"], row["dataset"]): row[metric]
            for row in rows
            if row["variant"] == name and row["protocol"] == protocol and row[metric] is not None
        }

    own, other = by_seed(variant), by_seed(over)
    return [own[key] - other[key] for key in sorted(own) if key in other]


BASELINE = "without_all"


def baseline_of(variant: str, variants: Iterable[str]) -> str:
    """The row without all three designs that a row is compared with; in a cross table, of the same training set."""
    prefix = next((name for name in ("natural_", "shape_only_") if variant.startswith(name)), "")
    return prefix + BASELINE if prefix + BASELINE in variants else ""


def markdown_table(rows: Sequence[Mapping[str, Any]], number: str) -> str:
    """A line per variant and test set: mean ± standard deviation over the seeds, and the paper's numbers.

    If the study has the row without all three designs, one column shows the gain in CC mAP over it, paired by seed.
    """
    protocols = [name for name in ("general", "CC") if any(row["protocol"] == name for row in rows)]
    protocols = protocols or sorted({row["protocol"] for row in rows})
    printed = paper.TABLES.get(number, {})
    paper_columns = list(next(iter(printed.values()), {}))
    compared = next((name for name in ("CC", *protocols) if name in protocols), None)
    variants, datasets = (list(dict.fromkeys(row[key] for row in rows)) for key in ("variant", "dataset"))
    has_baseline = any(baseline_of(variant, variants) for variant in variants)
    headers = ["", "seeds", *(f"{protocol} {metric}" for protocol in protocols for metric in SHOWN)]
    if has_baseline:
        headers.append(f"{compared} mAP above w/o all three")
    headers += ["minutes per run", *(f"paper, {column}" for column in paper_columns)]
    lines = []
    for variant, dataset in dict.fromkeys((row["variant"], row["dataset"]) for row in rows):
        shown = [row for row in rows if row["dataset"] == dataset]
        own = [row for row in shown if row["variant"] == variant]
        tested = f", tested on {dataset}" if len(datasets) > 1 else ""
        line = [own[0]["title"] + tested, len({row["seed"] for row in own})]
        for protocol in protocols:
            for metric in SHOWN:
                line.append(
                    text_of([row[metric] for row in own if row["protocol"] == protocol and row[metric] is not None])
                )
        if has_baseline:
            baseline = baseline_of(variant, variants)
            difference = [] if variant == baseline else gains(shown, variant, baseline, compared)
            line.append(f"{'+' if difference and statistics.fmean(difference) >= 0 else ''}{text_of(difference)}")
        line.append(f"{statistics.fmean(row['minutes'] for row in own):.1f}")
        scores = printed.get(variant, {})
        line += [pair(scores[column]) if column in scores else "" for column in paper_columns]
        lines.append(line)
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)


def pair(score: paper.Score) -> str:
    """``mAP / Rank-1``; a dash where the paper has no number."""
    return " / ".join("-" if value is None else f"{value:.1f}" for value in score)


def mixed_settings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Titles of the variants whose seeds were trained with different settings."""
    return [
        next(row["title"] for row in rows if row["variant"] == variant)
        for variant in dict.fromkeys(row["variant"] for row in rows)
        if len({row["settings"] for row in rows if row["variant"] == variant}) > 1
    ]


def other_settings(runs: Sequence[Run]) -> list[str]:
    """Lines that name the finished runs whose settings are not those of the others, such as another number of epochs.

    What a row changes by definition does not count.
    """
    names: dict[str, list[str]] = {}
    for run in runs:
        if run.is_done():
            names.setdefault(", ".join(run.changes()), []).append(run.name)
    if len(names) < 2:
        return []
    return [f"{'; '.join(group)}: {changes or 'the settings of this command'}" for changes, group in names.items()]


def machine() -> str:
    """Processor, number of cores, device and versions, in one line."""
    import torch

    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores{device}, Python {platform.python_version()}, torch {torch.__version__}"


def write_results(
    path: Path,
    title: str,
    table: Callable[[Sequence[Mapping[str, Any]]], str],
    runs: Sequence[Run],
    command: str,
    machine: str,
    left_out: Mapping[str, str],
    intervals: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Writes `path` with the endings .csv, .md and .png for those `runs` that are finished; returns their rows.

    Args:
        table: makes markdown from the rows.
        left_out: by title of a row that could not run, the reason.
        intervals: lines about the gains in CC mAP over other people, see tools/study/people.py.
    """
    rows = rows_of(runs)
    write_csv(path.with_suffix(".csv"), rows)
    finished = len({(row["variant"], row["seed"]) for row in rows})
    tests = ", ".join(dict.fromkeys(row["dataset"] for row in rows))
    state = f"Tested on {tests or 'nothing yet'}. {finished} of the {len(runs)} started runs are finished."
    parts = [f"# {title}", "", state, ""]
    if rows:
        parts += [table(rows), "", "Percent; mean ± standard deviation over the seeds.", ""]
    if intervals:
        parts += ["Gain in CC mAP above w/o all three, resampled over the test people:", ""]
        parts += [*(f"- {line}" for line in intervals), ""]
    failures = {run.name: run.record().get("failure") for run in runs}
    parts += [f"- failed: {name}: {failure}" for name, failure in failures.items() if failure]
    parts += [f"- left out: {name}: {why}" for name, why in left_out.items()]
    parts += [f"- **the seeds have different settings, do not use the mean**: {name}" for name in mixed_settings(rows)]
    parts += [f"- **runs with different settings, do not compare them**: {line}" for line in other_settings(runs)]
    parts += [f"- command: `{command}`", f"- machine: {machine}", ""]
    write_atomically(path.with_suffix(".md"), "\n".join(parts).encode())
    if rows:
        plot(path.with_suffix(".png"), rows, title)
    return rows


def plot(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draws CC mAP (without CC, general mAP): a dot per seed, a line for the mean, a bar for its standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    protocols = {row["protocol"] for row in rows}
    protocol = next((name for name in ("CC", "general") if name in protocols), rows[0]["protocol"])
    shown = [row for row in rows if row["protocol"] == protocol and row["mAP"] is not None]
    several = len({row["dataset"] for row in shown}) > 1
    lines: dict[str, list[float]] = {}
    for row in shown:
        title_of_row = row["title"].partition(" (left out")[0] + (f", on {row['dataset']}" if several else "")
        lines.setdefault(title_of_row, []).append(row["mAP"])
    figure = Figure(figsize=(9, 1.2 + 0.45 * max(len(lines), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, values in enumerate(lines.values()):
        mean, deviation = mean_and_deviation(values)
        axes.errorbar(mean, place, xerr=deviation, fmt="|", markersize=16, color="black", capsize=4, zorder=2)
        axes.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.7, zorder=3)
    axes.set_yticks(range(len(lines)), list(lines))
    axes.invert_yaxis()
    axes.set_xlabel(f"{protocol} mAP in percent; dots: seeds, line: mean, bar: standard deviation")
    figure.suptitle(title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=150))
