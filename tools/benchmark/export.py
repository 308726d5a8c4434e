"""Images per second of a student in PyTorch, TorchScript and ONNX on a CPU."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tools.benchmark.figures import write_figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument("--model", required=True, metavar="RUN", help="run folder or checkpoint")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[1, 8, 64], metavar="B", help="images per batch (1 8 64)"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of measurement per figure (1)")
    parser.add_argument("--threads", type=int, default=0, help="number of threads (torch's default)")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Exports the student, runs all three forms in turn on the CPU, prints a table and returns the figures.

    Returns:
        ``rows``: a list of {batch, images_per_second: {pytorch, torchscript, onnx}} with medians; ``model``,
        ``size``, ``threads``, and ``difference``: by exported format, 1 - cosine to PyTorch's features.
    """
    from tabulate import tabulate

    from fastreid_clip3d.errors import ClearError
    from fastreid_clip3d.inference.export import ExportedStudent, export, load_onnx, load_torchscript
    from fastreid_clip3d.inference.model import load_torch_model

    if min(arguments.batch) < 1 or arguments.seconds <= 0:
        raise ClearError("--batch must be at least 1, --seconds above 0.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = load_torch_model(arguments.model, "cpu")
    student = ExportedStudent(model.network).eval()
    with tempfile.TemporaryDirectory() as folder:
        files = {"torchscript": Path(folder) / "student.pt", "onnx": Path(folder) / "student.onnx"}
        difference = {name: export(model, path).difference for name, path in files.items()}
        runners = {
            "pytorch": student,
            "torchscript": load_torchscript(files["torchscript"]),
            "onnx": load_onnx(files["onnx"]),
        }
    with torch.no_grad():
        rows = [_row(runners, batch, model.size, arguments.seconds) for batch in arguments.batch]
    figures = {
        "model": model.backbone_name,
        "size": list(model.size),
        "threads": torch.get_num_threads(),
        "difference": difference,
        "rows": rows,
    }
    height, width = model.size
    print(f"{model.backbone_name}, {height} x {width}, cpu, {figures['threads']} threads; images per second\n")
    table = [[row["batch"], *(f"{speed:.1f}" for speed in row["images_per_second"].values())] for row in rows]
    print(tabulate(table, headers=["batch", *runners], tablefmt="pipe", disable_numparse=True))
    write_figures(arguments.json, figures)
    return figures


def _row(runners: dict[str, Callable], batch: int, size: tuple[int, int], seconds: float) -> dict[str, Any]:
    """Measures the runners in turn, so that a slow moment of the machine affects all of them."""
    images = 255 * torch.rand(batch, 3, *size)
    for runner in runners.values():
        runner(images)
        runner(images)  # TorchScript compiles in its second run
    taken: dict[str, list[float]] = {name: [] for name in runners}
    end = time.perf_counter() + seconds * len(runners)
    while not taken["onnx"] or time.perf_counter() < end:
        for name, runner in runners.items():
            start = time.perf_counter()
            runner(images)
            taken[name].append(time.perf_counter() - start)
    return {
        "batch": batch,
        "images_per_second": {name: batch / statistics.median(times) for name, times in taken.items()},
    }
