"""A training step of the method, by part, beside fast-reid's baseline step on the same number of images.

R real and S = R synthetic images per step. The steps that are compared work on random pixels in memory, since their
time does not depend on what the pixels show. ``loading.py`` measures whether reading files keeps up.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tools.benchmark.contestants import CONTESTANTS, Contestant, Kind, contestant_config, has_synthetic_half
from tools.benchmark.figures import write_figures
from tools.benchmark.floor import DTYPES, busy_share, floor_milliseconds, machine_rates, step_work
from tools.benchmark.loading import measure_loading
from tools.benchmark.memory import mib_text, peak_mib

PARTS = ("teacher", "forward", "losses", "backward", "optimiser")
LIMITS = {"cpu": {"b/a": 1.10, "c/a2": 1.10}, "cuda": {"b/a": 1.05, "c/a2": 1.05}}
"""The most that a step of ours may take, as a multiple of fast-reid's step on as many images."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument("--config-file", default="configs/CLIP3D/celeb.yml", help="student and losses (%(default)s)")
    parser.add_argument("--batch", type=int, default=0, help="R = S (64 on CUDA, 16 on a CPU)")
    parser.add_argument(
        "--steps", type=int, default=0, help="measured steps of each contestant (20 on CUDA, 3 on a CPU)"
    )
    parser.add_argument("--device", default="", help="cpu or cuda (cuda where there is one)")
    parser.add_argument(
        "--precision",
        choices=tuple(DTYPES),
        default="float32",
        help="number format of the arithmetic; float16 on CUDA only (float32)",
    )
    parser.add_argument("--no-online", action="store_true", help="leave out the contestant with ViT-L/14 in every step")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images; 0: do not measure that (2)")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="changes to the config, last")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures in turns, prints a table with ratios and verdicts and returns the figures.

    Contestants: (a) Baseline on R; (b) ours with cached answers on R, which is the real half alone; (a2) Baseline on
    R + S; (c) ours with cached answers on R + S; (s) the synthetic half alone; (d) ours on R with ViT-L/14 (random
    weights: its time is that of the trained one) in every step. a2, c and s only if the config has a synthetic half.

    Returns:
        ``rows``: a list of {contestant, milliseconds of each part and of the step (medians), peak_mib (weights,
        gradients, optimiser state, batch, and what the step takes on top), busy_share (of the device; None on a CPU),
        work {tflop, gb} and floor {arithmetic, memory, floor} in milliseconds, see ``floor.py`` (None for the online
        teacher)}; ``rates`` of the machine; ``ratios``, ``limits`` and ``met``;
        ``loading`` (None without workers): {workers, milliseconds_waited, milliseconds_step, share, limit, met,
        images_per_second (of the loader alone), images_per_second_of_step, workers_needed}; and what was asked for.
    """
    from fastreid_clip3d.common.devices import find_device
    from fastreid_clip3d.errors import ClearError

    device = str(find_device(arguments.device))
    if min(arguments.batch, arguments.steps, arguments.workers) < 0:
        raise ClearError("--batch, --steps and --workers are not negative.")
    on_cuda = device.startswith("cuda")
    real, steps = arguments.batch or (64 if on_cuda else 16), arguments.steps or (20 if on_cuda else 3)
    if arguments.precision == "float16" and not on_cuda:
        raise ClearError("--precision float16 needs CUDA; a CPU trains in float32 or bfloat16.")
    both_halves = has_synthetic_half(contestant_config(arguments, device, Kind(synthetic=True)))
    contestants = {
        name: Contestant(arguments, device, kind, real)
        for name, kind in CONTESTANTS.items()
        if (both_halves or not kind.synthetic) and not (arguments.no_online and kind.online)
    }
    seconds, peaks = _measure_in_turns(contestants, steps, device)
    rates = machine_rates(device, arguments.precision)
    rows = [
        {**_row(name, contestants[name], seconds[name], rates, device), "peak_mib": peaks[name]} for name in contestants
    ]
    ratios = _ratios(rows)
    limits = {name: limit for name, limit in LIMITS["cuda" if on_cuda else "cpu"].items() if name in ratios}
    loading = None
    if arguments.workers:
        whole = contestants["c  ours, R + S" if both_halves else "b  ours, R"]
        loading = measure_loading(arguments, whole, steps)
    figures = {
        "device": torch.cuda.get_device_name() if on_cuda else f"cpu, {torch.get_num_threads()} threads",
        "config": arguments.config_file,
        "options": list(arguments.options),
        "real": real,
        "synthetic": real if both_halves else 0,
        "steps": steps,
        "precision": arguments.precision,
        "compiled": bool(next(iter(contestants.values())).cfg.MODEL.COMPILE),
        "rates": rates,
        "rows": rows,
        "ratios": ratios,
        "limits": limits,
        "met": {name: ratios[name] <= limit for name, limit in limits.items()},
        "loading": loading,
    }
    _print(figures)
    write_figures(arguments.json, figures)
    return figures


def _measure_in_turns(
    contestants: dict[str, Contestant], steps: int, device: str
) -> tuple[dict[str, list[dict[str, float]]], dict[str, float | None]]:
    """Each contestant's seconds by part for every measured step, and its peak memory in MiB (None: not known).

    All contestants take a step in each turn, so that a change of the machine's speed meets all of them.
    """
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    peaks: dict[str, float | None] = {}
    for turn in range(steps + 2):  # the first turn warms up, the second one measures memory
        for name, contestant in contestants.items():
            if turn == 1:
                added, _ = peak_mib(contestant.step, device)
                peaks[name] = None if added is None else added + contestant.state_mib()
                continue
            parts = contestant.step()
            if turn:
                seconds[name].append(parts)
    return seconds, peaks


def _row(
    name: str, contestant: Contestant, turns: list[dict[str, float]], rates: dict[str, float], device: str
) -> dict[str, Any]:
    """A contestant's row of the figures, without its peak memory."""
    work = None if contestant.kind.online else step_work(contestant.step, contestant.model, contestant.optimizer)
    return {
        "contestant": name,
        **{part: 1000 * statistics.median(turn[part] for turn in turns) for part in PARTS},
        "milliseconds": 1000 * statistics.median(sum(turn.values()) for turn in turns),
        "busy_share": busy_share(contestant.step, device),
        "work": work,
        "floor": None if work is None else floor_milliseconds(work, rates),
    }


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    by_name = {row["contestant"][:2].strip(): row["milliseconds"] for row in rows}
    return {
        f"{ours}/{theirs}": by_name[ours] / by_name[theirs]
        for ours, theirs in (("b", "a"), ("c", "a2"), ("d", "a"))
        if ours in by_name
    }


def _print(figures: dict[str, Any]) -> None:
    table = Table(
        title=f"{figures['device']}, {figures['precision']}; {figures['config']}; R {figures['real']}, "
        f"S {figures['synthetic']}; milliseconds per step",
        title_justify="left",
    )
    table.add_column("contestant", no_wrap=True)
    for name in (*PARTS, "step", "floor", "peak MiB"):
        table.add_column(name, justify="right")
    for row in figures["rows"]:
        parts = (f"{row[part]:.1f}" for part in PARTS)
        floor = "-" if row["floor"] is None else f"{row['floor']['floor']:.1f}"
        table.add_row(row["contestant"], *parts, f"{row['milliseconds']:.1f}", floor, mib_text(row["peak_mib"]))
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    for name, ratio in figures["ratios"].items():
        print(f"{name} = {ratio:.3f}" + _verdict(figures["met"].get(name), f"{figures['limits'].get(name, 0):.2f}"))
    loading = figures["loading"]
    if loading:
        print(
            f"waiting for data, {loading['workers']} workers: {loading['milliseconds_waited']:.1f} of "
            f"{loading['milliseconds_step']:.1f} ms, {100 * loading['share']:.1f} %"
            + _verdict(loading["met"], f"{100 * loading['limit']:.0f} %")
        )
        print(
            f"the loader alone gives {loading['images_per_second']:.0f} images/s, a step takes "
            f"{loading['images_per_second_of_step']:.0f} images/s: {loading['workers_needed']} workers keep up"
        )


def _verdict(met: bool | None, limit: str) -> str:
    return "" if met is None else f" (at most {limit}: {'met' if met else 'NOT met'})"
