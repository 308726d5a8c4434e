"""Steps per second of the training of the embedded teacher, with its recipe's settings and random pictures."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import torch

from tools.benchmark.figures import write_figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument("--steps", type=int, default=50, help="measured steps (50)")
    parser.add_argument("--warmup", type=int, default=5, help="steps before the measurement (5)")
    parser.add_argument("--batch", type=int, default=64, help="pictures per step (64)")
    parser.add_argument("--views", type=int, default=0, help="precomputed views per picture; 0: new ones each step (0)")
    parser.add_argument("--tower", default="tf_efficientnet_lite0", help="timm's visual tower (%(default)s)")
    parser.add_argument("--device", default="", help="cpu or cuda (cuda if there is one)")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, prints a line and returns the figures.

    Each step reads its losses on the host, as in the training, so that its time includes the device's work.

    Returns:
        ``milliseconds`` (the median step), ``steps_per_second`` and ``pictures_per_second`` (from it), ``peak_mib``
        (device memory above the models on CUDA, resident memory on a CPU, None where the system does not report it),
        ``device``, ``tower``, ``batch``, ``views``, ``steps``.
    """
    from fastreid_clip3d.common.devices import find_device
    from fastreid_clip3d.errors import ClearError
    from fastreid_clip3d.vocabulary import NUM_PAIRS
    from tools.assets.teacher.pictures import NUM_SHAPES, LabelledPictures
    from tools.assets.teacher.settings import TrainingSettings
    from tools.assets.teacher.training import TeacherTraining
    from tools.benchmark.memory import mib_text, peak_mib

    for name in ("steps", "warmup", "batch"):
        if getattr(arguments, name) < 1:
            raise ClearError(f"--{name} is {getattr(arguments, name)}; it must be at least 1.")
    device = str(find_device(arguments.device))
    settings = TrainingSettings(
        steps=arguments.warmup + arguments.steps,
        batch=arguments.batch,
        views=arguments.views,
        visual_tower=arguments.tower,
    )
    generator = np.random.default_rng(0)
    count = 2 * arguments.batch
    pictures = LabelledPictures(
        generator.integers(0, 256, (count, *settings.image_size, 3), dtype=np.uint8),
        generator.integers(0, 2, (count, NUM_PAIRS)).astype(np.float32),
        np.arange(count),
        np.zeros(count, np.int64),
        generator.standard_normal((count, NUM_SHAPES)).astype(np.float32),
        np.zeros(count, bool),
    )
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        training = TeacherTraining(settings, pictures, folder, device=device)

        def steps() -> None:
            for _ in range(settings.steps):
                started = time.perf_counter()
                training.train_step()["total"].item()
                times.append(time.perf_counter() - started)

        peak, _ = peak_mib(steps, device)
    seconds = statistics.median(times[arguments.warmup :])
    figures = {
        "device": torch.cuda.get_device_name()
        if device.startswith("cuda")
        else f"cpu, {torch.get_num_threads()} threads",
        "tower": arguments.tower,
        "batch": arguments.batch,
        "views": arguments.views,
        "steps": arguments.steps,
        "steps_per_second": 1 / seconds,
        "pictures_per_second": arguments.batch / seconds,
        "milliseconds": 1000 * seconds,
        "peak_mib": peak,
    }
    print(
        f"{arguments.tower}, batch {arguments.batch}, on {figures['device']}: {1 / seconds:.2f} steps/s, "
        f"{1000 * seconds:.1f} ms per step, {mib_text(peak)} MiB"
    )
    write_figures(arguments.json, figures)
    return figures
