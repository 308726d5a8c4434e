"""The tables of a CUDA device in docs/performance.md, from the .json files that the other benchmarks wrote."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tools.benchmark.markers import replace_between

MARKER = "cuda tables"
PARTS = ("teacher", "forward", "losses", "backward", "optimiser")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("--folder", default="logs/gpu", help="where the .json files are (%(default)s)")
    parser.add_argument("--markdown", metavar="FILE", default="", help="put the tables between the markers of FILE")
    parser.add_argument("--update-docs", action="store_true", help="the same for docs/performance.md")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prints the tables; returns the figures by file name.

    Raises:
        ClearError: the folder holds no figures, or the document has no markers.
    """
    from fastreid_clip3d.errors import ClearError

    figures = {path.stem: json.loads(path.read_text()) for path in sorted(Path(arguments.folder).glob("*.json"))}
    sections = [text for name, found in figures.items() for text in _section(name, found)]
    if not sections:
        raise ClearError(f"--folder {arguments.folder}: no figures of a benchmark in it.")
    text = "\n\n".join(sections)
    print(text)
    root = Path(__file__).resolve().parents[2]
    for document in filter(None, [arguments.markdown, str(root / "docs" / "performance.md") * arguments.update_docs]):
        replace_between(Path(document), text, MARKER)
    return figures


def _section(name: str, figures: dict[str, Any]) -> list[str]:
    if not isinstance(figures, dict):
        return []
    if "ratios" in figures and "loading" in figures:
        return [_step(figures)]
    if "labelled_per_second" in figures:
        return [_labelling(figures)]
    if "rows" in figures and "max_memory" in figures:
        return [_evaluation(figures)]
    if "pictures_per_second" in figures and "tower" in figures:
        return [_teacher_training(figures)]
    if "seconds_for_10000" in figures:
        return [_rendering(figures)]
    return []


def _step(figures: dict[str, Any]) -> str:
    compiled = ", compiled" if figures["compiled"] else ""
    lines = [
        f"**A step in {figures['precision']}{compiled}** on {figures['device']}: `{figures['config']}`, R = "
        f"{figures['real']}, S = {figures['synthetic']}, {figures['steps']} steps.",
        "",
        f"| milliseconds | {' | '.join(PARTS)} | step | peak MiB | busy | floor | step / floor |",
        "|---" * (len(PARTS) + 6) + "|",
    ]
    for row in figures["rows"]:
        floor, busy = row.get("floor"), row.get("busy_share")
        cells = [f"{row[part]:.1f}" for part in PARTS]
        cells += [f"{row['milliseconds']:.1f}", _whole(row["peak_mib"]), "-" if busy is None else f"{100 * busy:.0f} %"]
        cells += (
            ["-", "-"] if floor is None else [f"{floor['floor']:.1f}", f"{row['milliseconds'] / floor['floor']:.1f}"]
        )
        lines.append(f"| {row['contestant']} | {' | '.join(cells)} |")
    said = ", ".join(f"{name} = {ratio:.2f}" for name, ratio in figures["ratios"].items())
    rates = figures["rates"]
    lines += [
        "",
        f"{said}. Matrix products reach {rates['tflops']:.1f} TFLOP/s, copies {rates['gb_per_second']:.0f} GB/s.",
    ]
    if figures["loading"]:
        loading = figures["loading"]
        lines.append(
            f"Waiting for data: {100 * loading['share']:.1f} % of a step with {loading['workers']} workers; the loader "
            f"alone reads {loading['images_per_second']:.0f} images/s, the step takes "
            f"{loading['images_per_second_of_step']:.0f}."
        )
    return "\n".join(lines)


def _labelling(figures: dict[str, Any]) -> str:
    return (
        f"**Labelling** on {figures['device']}, {figures['teacher']} teacher, batch {figures['batch']}: "
        f"{figures['labelled_per_second']:.0f} images/s from files, {figures['bare_per_second']:.0f} in open_clip's "
        f"bare forward pass ({figures['ratio']:.2f})."
    )


def _evaluation(figures: dict[str, Any]) -> str:
    row = figures["rows"][0]
    return (
        f"**Evaluation** at {figures['size']}'s size, distances on {figures['device']}: {row['seconds']:.1f} s, "
        f"{row['peak_mib']:.0f} MiB of memory."
    )


def _rendering(figures: dict[str, Any]) -> str:
    return (
        f"**Rendering** on {figures['device']}: {figures['seconds_for_10000']:.0f} s for 10,000 pictures "
        f"({figures['pictures_per_second']:.0f}/s, measured with {figures['images']})."
    )


def _teacher_training(figures: dict[str, Any]) -> str:
    return (
        f"**Training of the embedded teacher** on {figures['device']}, batch {figures['batch']}: "
        f"{figures['steps_per_second']:.1f} steps/s ({figures['milliseconds']:.1f} ms), peak "
        f"{_whole(figures['peak_mib'])} MiB."
    )


def _whole(mib: float | None) -> str:
    return "-" if mib is None else f"{mib:.0f}"
