"""Speed of our optimal transport loss, of POT's batched solver, and of POT's solver image by image."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from tools.benchmark.figures import write_figures
from tools.benchmark.memory import mib_text, peak_mib


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument("--batch", type=int, default=64, help="images per batch, B (64)")
    parser.add_argument("--patches", type=int, default=128, help="patches per image, N (128)")
    parser.add_argument("--width", type=int, default=2048, help="width of the student, d' (2048)")
    parser.add_argument("--text-width", type=int, default=768, help="width of the text space, d (768)")
    parser.add_argument("--reg", type=float, default=1.0, help="lambda (1.0)")
    parser.add_argument("--iterations", type=int, nargs="+", default=[1, 100], help="Sinkhorn iterations, t (1 100)")
    parser.add_argument("--device", default="", help="cpu or cuda (cuda where there is one)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements, taken in turn; the median is printed (7)")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, prints a table and returns the figures.

    There are two kinds of rows. ``solver``: from the costs to the plans, M = 16. ``loss``: forward and backward pass
    from local features and the phrase table to their gradients. With POT, each image gets its own 16 rows of Psi's
    output, as in code that is written image by image. All use float32 and the same number of iterations.

    Returns:
        ``rows``: a list of {part, solver, iterations, milliseconds, ratio (divided by ours), peak_mib}, and ``device``,
        ``batch``, ``patches``, ``width``, ``reg``. ``peak_mib`` is the memory above that at the start: device memory on
        CUDA, resident memory on a CPU (None where the system does not report it).
    """
    from fastreid_clip3d.common.devices import find_device

    device = str(find_device(arguments.device))
    rows = []
    for iterations in arguments.iterations:
        for part, solvers in _contestants(arguments, iterations, device).items():
            rows += _compare(part, iterations, solvers, device, arguments.repeats)
    figures = {
        "device": _device_name(device),
        "batch": arguments.batch,
        "patches": arguments.patches,
        "width": arguments.width,
        "reg": arguments.reg,
        "rows": rows,
    }
    _print_table(figures)
    write_figures(arguments.json, figures)
    return figures


def _contestants(
    arguments: argparse.Namespace, iterations: int, device: str
) -> dict[str, dict[str, Callable[[], torch.Tensor]]]:
    """By part and solver: a function to measure. It returns the loss."""
    import ot

    from fastreid_clip3d.modeling.losses import OTLoss

    batch, patches, width = arguments.batch, arguments.patches, arguments.width
    torch.manual_seed(0)
    loss = OTLoss(arguments.text_width, width, reg=arguments.reg, num_iters=iterations).to(device)
    table = torch.randn(32, arguments.text_width, device=device)
    features = torch.randn(batch, patches, width, device=device, requires_grad=True)
    choices = torch.randint(0, 2, (batch, 16), device=device)
    with torch.no_grad():
        cost = loss.cost(features, loss.project(table), choices)
    rows, columns = torch.full((patches,), 1 / patches, device=device), torch.full((16,), 1 / 16, device=device)

    def pot_batched(cost: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return ot.solve_batch(
                cost,
                arguments.reg,
                rows.expand(batch, -1),
                columns.expand(batch, -1),
                max_iter=iterations,
                tol=0,
                method="sinkhorn",
                grad="detach",
            ).plan

    def pot_loop(cost: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.stack(
                [
                    ot.sinkhorn(rows, columns, one, arguments.reg, numItermax=iterations, stopThr=0, warn=False)
                    for one in cost
                ]
            )

    def cost_image_by_image(features: torch.Tensor) -> torch.Tensor:
        chosen = table[2 * torch.arange(16, device=device) + choices]  # [B, 16, d]
        phrases = torch.nn.functional.normalize(loss.projection(chosen), dim=-1)
        return 1 - torch.nn.functional.normalize(features, dim=-1) @ phrases.transpose(1, 2)

    def step(value: torch.Tensor) -> torch.Tensor:
        features.grad = None
        loss.zero_grad()
        value.backward()
        return value

    def theirs(solver: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        cost_matrix = cost_image_by_image(features)
        return step((solver(cost_matrix.detach()) * cost_matrix).sum() / batch)

    return {
        "solver": {
            "ours": lambda: (loss.plan(cost) * cost).sum() / batch,
            "POT batched": lambda: (pot_batched(cost) * cost).sum() / batch,
            "POT image by image": lambda: (pot_loop(cost) * cost).sum() / batch,
        },
        "loss": {
            "ours": lambda: step(loss(features, loss.project(table), choices)),
            "POT batched": lambda: theirs(pot_batched),
            "POT image by image": lambda: theirs(pot_loop),
        },
    }


def _compare(
    part: str, iterations: int, solvers: dict[str, Callable[[], torch.Tensor]], device: str, repeats: int
) -> list[dict[str, Any]]:
    """Rows of one part. The solvers take turns, so that a slow moment of the machine affects all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in solvers}
    values, peaks = {}, {}
    for name, solve in solvers.items():  # warm-up
        if device.startswith("cuda"):
            solve()  # the first call allocates memory that the device keeps
        peaks[name], value = peak_mib(solve, device)
        values[name] = float(value.detach())
    expected = values["ours"]
    for name, value in values.items():
        if abs(value - expected) > 1e-4 * abs(expected) + 1e-6:
            raise AssertionError(f"{part}, {iterations} iterations: {name} gives {value}, ours {expected}")
    for _ in range(repeats):
        for name, solve in solvers.items():
            _wait(device)
            start = time.perf_counter()
            solve()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    ours = statistics.median(seconds["ours"])
    return [
        {
            "part": part,
            "solver": name,
            "iterations": iterations,
            "milliseconds": 1000 * statistics.median(taken),
            "ratio": statistics.median(taken) / ours,
            "peak_mib": peaks[name],
        }
        for name, taken in seconds.items()
    ]


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _print_table(figures: dict[str, Any]) -> None:
    print(
        f"{figures['device']}; B {figures['batch']}, N {figures['patches']}, M 16, d' {figures['width']}, "
        f"lambda {figures['reg']}"
    )
    print(f"{'part':8}{'t':>5}  {'solver':20}{'ms':>10}{'/ ours':>9}{'peak MiB':>10}")
    for row in figures["rows"]:
        print(
            f"{row['part']:8}{row['iterations']:>5}  {row['solver']:20}{row['milliseconds']:>10.2f}"
            f"{row['ratio']:>9.1f}{mib_text(row['peak_mib']):>10}"
        )


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu, {torch.get_num_threads()} threads"
