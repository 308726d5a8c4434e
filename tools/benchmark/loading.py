"""Whether training's own loader, which reads files, keeps up with the steps."""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.benchmark.contestants import TEACHER_WIDTH, Contestant

DATA_LIMIT = {"cpu": 0.05, "cuda": 0.02}
"""Share of a step that may be spent waiting for data."""
PERSONS_IN_FILES, PHOTOS_OF_A_PERSON = 64, 8


class _Answers:
    """A cached teacher's answers without a cache; looking one up costs next to nothing in training too."""

    def lookup(self, path: str, flipped: bool) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(TEACHER_WIDTH), torch.zeros(16, dtype=torch.int64)


def measure_loading(arguments: argparse.Namespace, contestant: Contestant, steps: int) -> dict[str, Any]:
    """How long steps wait for training's own loader, and how many images per second the loader alone gives."""
    with tempfile.TemporaryDirectory() as folder:
        loader = _training_loader(contestant, Path(folder), arguments.workers)
        images = loader.batch_sampler.batch_size
        batches = iter(loader)
        waited, whole = _waiting_steps(contestant, batches, steps)
        for _ in range(2 * arguments.workers):  # those that were read while the last step ran
            next(batches)
        count = max(4 * arguments.workers, steps)
        start = time.perf_counter()
        for _ in range(count):
            next(batches)
        speed = count * images / (time.perf_counter() - start)
        del batches
    step_speed = images * len(whole) / (sum(whole) - sum(waited))
    share = sum(waited) / sum(whole)
    limit = DATA_LIMIT["cuda" if contestant.device.startswith("cuda") else "cpu"]
    return {
        "workers": arguments.workers,
        "milliseconds_waited": 1000 * statistics.mean(waited),
        "milliseconds_step": 1000 * statistics.mean(whole),
        "share": share,
        "limit": limit,
        "met": share <= limit,
        "images_per_second": speed,
        "images_per_second_of_step": step_speed,
        "workers_needed": max(1, math.ceil(step_speed * arguments.workers / speed)),
    }


def _waiting_steps(
    contestant: Contestant, batches: Iterator[dict[str, Any]], steps: int
) -> tuple[list[float], list[float]]:
    """Seconds of waiting, and of waiting with step; the first steps wait for the workers to start and do not count."""
    waited, whole = [], []
    for number in range(steps + 3):
        start = time.perf_counter()
        batch = next(batches)
        middle = time.perf_counter()
        contestant.step(batch)
        if number >= 3:
            waited.append(middle - start)
            whole.append(time.perf_counter() - start)
    return waited, whole


def _training_loader(contestant: Contestant, folder: Path, workers: int) -> Any:
    """Training's loader on photographs of noise and bodies that are rendered for it, in the sizes of the config."""
    from PIL import Image

    from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
    from fastreid_clip3d.body.synthetic_writer import SyntheticSet
    from fastreid_clip3d.data.build import build_train_loader

    cfg = contestant.cfg.clone()
    cfg.defrost()
    real, height, width = len(contestant.batch["targets"]), *cfg.INPUT.SIZE_TRAIN
    generator = np.random.default_rng(0)
    lines = ["path,pid,camid,split"]
    for number in range(max(PERSONS_IN_FILES, real) * PHOTOS_OF_A_PERSON):
        small = generator.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
        name = f"{number:05d}.jpg"
        Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(folder / name, quality=90)
        lines.append(f"{name},{number // PHOTOS_OF_A_PERSON},0,train")
    (folder / "photographs.csv").write_text("\n".join(lines) + "\n")
    cfg.DATASETS.CSV, cfg.DATASETS.NAMES = (("Photographs", str(folder / "photographs.csv")),), ("Photographs",)
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.NUM_WORKERS = "MixedIdentitySampler", workers
    cfg.SOLVER.IMS_PER_BATCH = real
    cfg.DATALOADER.SYNTHETIC_PER_BATCH = real if contestant.kind.synthetic else 0
    cfg.DATALOADER.NUM_INSTANCE = math.gcd(cfg.DATALOADER.NUM_INSTANCE, real)
    if contestant.kind.synthetic:
        settings = SyntheticSettings(bodies=2, poses_per_body=8, image_size=(height, width))
        SyntheticSet(folder / "bodies", settings, workers=1).make(progress=False)
        cfg.DATASETS.SYNTHETIC = str(folder / "bodies")
    return build_train_loader(cfg, None, _Answers())
