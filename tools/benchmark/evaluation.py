"""Time and peak memory of our evaluation and of fast-reid's, in Python and in Cython, on the same features."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tools.benchmark.figures import write_figures

SIZES = {  # queries, gallery, people, cameras
    "market1501": (3368, 15913, 751, 6),
    "msmt17": (11659, 82161, 3060, 15),
    "small": (200, 2000, 50, 4),
}
OURS, PYTHON, CYTHON = "ours", "fast-reid Python", "fast-reid Cython"
_MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument(
        "--size", choices=SIZES, default="market1501", help="dataset whose number of images is used (market1501)"
    )
    parser.add_argument("--dims", type=int, default=512, help="dimensions of a feature (512)")
    parser.add_argument(
        "--metric", choices=("cosine", "euclidean"), default="cosine", help="distance of features (cosine)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=(OURS, PYTHON, CYTHON), metavar="NAME",
        help=f"measure only these of: {OURS}, {PYTHON}, {CYTHON} (all; the last needs Cython)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=0, help="number of threads (torch's default)")
    parser.add_argument("--max-memory", type=float, default=1024, help="TEST.EVALUATION.MAX_MEMORY, MiB (1024)")
    parser.add_argument("--device", default="cpu", help="device of our distances: cpu or cuda (cpu)")
    parser.add_argument("--repeats", type=int, default=1, help="measurements, taken in turn; the median is printed (1)")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, prints a table and returns the figures.

    Each measurement has its own process, so that it has its own peak of memory. The time is that from features in
    memory to mAP, CMC and mINP, without the start of Python.

    Returns:
        ``rows``: a list of {name, seconds, peak_mib (resident memory of the process), added_mib (the part above the
        features), time_ratio and memory_ratio (theirs divided by ours), mAP, rank_1, mINP in percent}, and the options.
    """
    from fastreid_clip3d.errors import ClearError

    names = arguments.only or [OURS, PYTHON, CYTHON]
    with tempfile.TemporaryDirectory() as folder:
        module, reason = _build_cython(Path(folder)) if CYTHON in names else ("", "")
        if CYTHON in names and not module:
            if arguments.only:
                raise ClearError(f"--only {CYTHON}: {reason}")
            print(f"left out: {CYTHON} ({reason})")
            names = [name for name in names if name != CYTHON]
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(arguments.repeats):
            for name in names:
                measured[name].append(_measure(arguments, name, module))
    rows = []
    for name, runs in measured.items():
        middle = sorted(runs, key=lambda values: values["seconds"])[len(runs) // 2]
        first = rows[0] if rows else middle
        ratios = {
            "time_ratio": middle["seconds"] / first["seconds"], "memory_ratio": middle["peak_mib"] / first["peak_mib"],
        }  # fmt: skip
        rows.append({"name": name, **middle, **ratios})
    figures = {key: getattr(arguments, key) for key in ("size", "dims", "metric", "device", "max_memory", "repeats")}
    figures.update(threads=int(rows[0]["threads"]), rows=rows)
    _print_table(figures)
    write_figures(arguments.json, figures)
    return figures


def _print_table(figures: dict[str, Any]) -> None:
    from tabulate import tabulate

    queries, gallery, *_ = SIZES[figures["size"]]
    print(
        f"{queries:,} queries x {gallery:,} gallery items, {figures['dims']}-d, {figures['metric']}, "
        f"{figures['threads']} threads, device {figures['device']}"
    )
    headers = ["evaluation", "seconds", "ratio", "peak MiB", "ratio", "above features MiB", "mAP", "Rank-1"]
    keys = ["name", "seconds", "time_ratio", "peak_mib", "memory_ratio", "added_mib", "mAP", "rank_1"]
    formats = ("", ".2f", ".1f", ".0f", ".1f", ".0f", ".4f", ".4f")
    print(tabulate([[row[key] for key in keys] for row in figures["rows"]], headers, tablefmt="pipe", floatfmt=formats))


def _build_cython(folder: Path) -> tuple[str, str]:
    """Builds fast-reid's module from a copy of its sources; returns its folder and "", or "" and the reason."""
    try:
        import Cython  # noqa: F401
    except ImportError:
        return "", "Cython is not installed"
    import fastreid.evaluation

    import fastreid_clip3d  # noqa: F401

    sources = Path(fastreid.evaluation.__file__).parent / "rank_cylib"
    shutil.copytree(sources, folder / "rank_cylib")
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    ended = subprocess.run(command, cwd=folder / "rank_cylib", capture_output=True, text=True)
    if ended.returncode:
        return "", f"the build failed: {ended.stderr.strip().splitlines()[-1] if ended.stderr.strip() else '?'}"
    return str(folder / "rank_cylib"), ""


def _measure(arguments: argparse.Namespace, name: str, cython_folder: str) -> dict[str, float]:
    from fastreid_clip3d.errors import ClearError

    task = {
        "name": name, "size": arguments.size, "dims": arguments.dims, "metric": arguments.metric,
        "threads": arguments.threads, "max_memory": arguments.max_memory, "device": arguments.device,
        "cython_folder": cython_folder,
    }  # fmt: skip
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
    command = [sys.executable, "-W", "ignore", "-m", "tools.benchmark.evaluation", json.dumps(task)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise ClearError(f"The measurement of {name} failed ({ended.returncode}): {ended.stderr.strip()[-500:]}")
    return json.loads(ended.stdout.strip().splitlines()[-1])


def _resident(field: str) -> float:
    """VmRSS or VmHWM (the peak) of this process, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _child(task: dict[str, Any]) -> dict[str, float]:
    """One measurement; it is the only one of its process."""
    import torch

    import fastreid_clip3d  # noqa: F401

    if task["threads"]:
        torch.set_num_threads(task["threads"])
    num_query, num_gallery, people, cameras = SIZES[task["size"]]
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    sides = []
    for count in (num_query, num_gallery):
        features = torch.randn(count, task["dims"])
        sides.append((features, generator.integers(0, people, count), generator.integers(0, cameras, count)))
    score = _ours if task["name"] == OURS else _theirs
    score(task, *[tuple(part[:64] for part in side) for side in sides])  # imports and thread pools
    before = _resident("VmRSS")
    start = time.perf_counter()
    values = score(task, *sides)
    seconds = time.perf_counter() - start
    peak = _resident("VmHWM")
    return {
        "seconds": seconds, "peak_mib": peak, "added_mib": peak - before, "threads": torch.get_num_threads(),
        "mAP": 100 * values[0], "rank_1": 100 * values[1], "mINP": 100 * values[2],
    }  # fmt: skip


def _ours(task: dict[str, Any], query: tuple, gallery: tuple) -> tuple[float, float, float]:
    from fastreid_clip3d.evaluation.protocols import GENERAL, NOTHING_REMOVED
    from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate

    protocol = GENERAL if len(query[0]) > 64 else NOTHING_REMOVED
    result = evaluate(
        LabelledFeatures(*query), LabelledFeatures(*gallery), [protocol], task["metric"], max_memory=task["max_memory"],
        device=task["device"],
    )[protocol.name]  # fmt: skip
    return result.mean_average_precision or 0.0, result.rank(1) or 0.0, result.mean_inverse_negative_penalty or 0.0


def _theirs(task: dict[str, Any], query: tuple, gallery: tuple) -> tuple[float, float, float]:
    from fastreid.evaluation import rank
    from fastreid.utils.compute_dist import build_dist

    if len(query[0]) <= 64:
        build_dist(query[0], gallery[0], task["metric"])
        return 0.0, 0.0, 0.0
    distances = build_dist(query[0], gallery[0], task["metric"])
    arguments = (distances, query[1], gallery[1], query[2], gallery[2])
    if task["name"] == CYTHON:
        sys.path.insert(0, task["cython_folder"])
        from rank_cy import evaluate_cy

        cmc, average_precisions, penalties = evaluate_cy(*arguments, 50, False)
    else:
        # fast-reid's own loop: compat replaces it by a vectorised one if NumPy refuses small galleries.
        own_loop = getattr(rank.eval_market1501, "__wrapped__", rank.eval_market1501)
        cmc, average_precisions, penalties = own_loop(*arguments, 50)
    return float(np.mean(average_precisions)), float(cmc[0]), float(np.mean(penalties))


if __name__ == "__main__":
    print(json.dumps(_child(json.loads(sys.argv[1]))))
