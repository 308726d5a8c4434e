"""A training step of the method, by part, beside fast-reid's baseline step on the same number of images.

R real and S synthetic images a step. Images are random pixels in memory: the time of a step does not depend on what they
show, and reading files is measured by training itself (``data_time`` in its log).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, Callable

import torch
from rich.console import Console
from rich.table import Table

PARTS = ("teacher", "forward", "losses", "backward", "optimiser")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument("--config-file", default="configs/CLIP3D/celeb.yml", help="student and losses (%(default)s)")
    parser.add_argument("--batch", type=int, default=0, help="R = S (64 on CUDA, 16 on a CPU)")
    parser.add_argument("--steps", type=int, default=0, help="measured steps of each contestant (20 on CUDA, 3 on a CPU)")
    parser.add_argument("--device", default="", help="cpu or cuda (cuda where there is one)")
    parser.add_argument("--amp", action="store_true", help="mixed precision (CUDA)")
    parser.add_argument("--no-online", action="store_true", help="leave out the contestant with ViT-L/14 in every step")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures in turns, prints a table with ratios and returns the figures.

    Contestants: (a) Baseline on R; (b) ours with cached answers on R; (a2) Baseline on R + S; (c) ours with cached answers
    on R + S; (d) ours on R with ViT-L/14 (random weights: its time is that of the trained one) in every step.
    """
    from fastreid_clip3d.errors import ClearError

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ClearError("--device cuda: no CUDA device can be used here; give --device cpu.")
    on_cuda = device.startswith("cuda")
    real = arguments.batch or (64 if on_cuda else 16)
    steps = arguments.steps or (20 if on_cuda else 3)
    amp = arguments.amp and on_cuda
    contestants: dict[str, Callable[[], dict[str, float]]] = {
        "a  Baseline, R": _contestant(arguments, device, "baseline", real, 0, amp),
        "b  ours, R": _contestant(arguments, device, "cached", real, 0, amp),
        "a2 Baseline, R + S": _contestant(arguments, device, "baseline", 2 * real, 0, amp),
        "c  ours, R + S": _contestant(arguments, device, "cached", real, real, amp),
    }
    if not arguments.no_online:
        contestants["d  ours, R, ViT-L/14 online"] = _contestant(arguments, device, "online", real, 0, amp)
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    peaks: dict[str, float | None] = {}
    for turn in range(steps + 1):  # the first turn warms up
        for name, step in contestants.items():
            if on_cuda:
                torch.cuda.reset_peak_memory_stats()
            parts = step()
            if on_cuda:
                peaks[name] = torch.cuda.max_memory_allocated() / 2**20
            if turn:
                taken[name].append(parts)
    rows = []
    for name, turns in taken.items():
        parts = {part: 1000 * statistics.median(turn[part] for turn in turns) for part in PARTS}
        total = 1000 * statistics.median(sum(turn.values()) for turn in turns)
        rows.append({"contestant": name, **parts, "milliseconds": total, "peak_mib": peaks.get(name)})
    by_name = {row["contestant"][:2].strip(): row["milliseconds"] for row in rows}
    ratios = {"b/a": by_name["b"] / by_name["a"], "c/a2": by_name["c"] / by_name["a2"]}
    if "d" in by_name:
        ratios["d/a"] = by_name["d"] / by_name["a"]
    figures = {
        "device": torch.cuda.get_device_name() if on_cuda else f"cpu, {torch.get_num_threads()} threads",
        "config": arguments.config_file,
        "real": real,
        "synthetic": real,
        "steps": steps,
        "amp": amp,
        "rows": rows,
        "ratios": ratios,
    }
    _print(figures)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _config(arguments: argparse.Namespace, device: str, kind: str) -> Any:
    from fastreid_clip3d.config import load_config

    cfg = load_config(arguments.config_file)
    cfg.MODEL.DEVICE = device
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.HEADS.NUM_CLASSES = 632
    if kind == "baseline":
        cfg.MODEL.META_ARCHITECTURE = "Baseline"
        cfg.MODEL.HEADS.NAME = "EmbeddingHead"
        cfg.MODEL.LOSSES.NAME = ("CrossEntropyLoss",)
    return cfg


def _contestant(
    arguments: argparse.Namespace, device: str, kind: str, real: int, synthetic: int, amp: bool
) -> Callable[[], dict[str, float]]:
    """A function that does one step and returns the seconds of its parts."""
    from fastreid.modeling.meta_arch import build_model
    from fastreid.modeling.meta_arch.baseline import Baseline
    from fastreid.solver import build_optimizer
    from fastreid.utils.events import EventStorage

    from fastreid_clip3d.modeling.meta_arch import clip3d_reid
    from fastreid_clip3d.teacher.guidance import Guidance

    cfg = _config(arguments, device, kind)
    torch.manual_seed(0)
    width = 768
    guidance = Guidance(torch.randn(32, width))
    original = clip3d_reid.guidance_from_config
    clip3d_reid.guidance_from_config = lambda cfg: guidance
    try:
        model = build_model(cfg).train()
    finally:
        clip3d_reid.guidance_from_config = original
    optimizer, _ = build_optimizer(cfg, model)
    teacher = _vit_l14(device) if kind == "online" else None
    height, wide = cfg.INPUT.SIZE_TRAIN
    pixels = torch.randint(0, 256, (real + synthetic, 3, height, wide), device=device, dtype=torch.uint8)
    answers = {
        "targets": torch.arange(real, device=device) // 4,
        "clothes_ids": torch.zeros(real, dtype=torch.int64, device=device),
        "teacher_features": torch.randn(real, width, device=device),
        "phrase_choices": torch.randint(0, 2, (real, 16), device=device),
    }
    if synthetic:
        answers |= {
            "synthetic_betas": torch.randn(synthetic, 10, device=device),
            "synthetic_gender": torch.arange(synthetic, device=device) % 2,
            "synthetic_phrase_choices": torch.randint(0, 2, (synthetic, 16), device=device),
        }
    teacher_pixels = torch.rand(real, 3, 224, 224, device=device) if teacher is not None else None
    is_baseline = type(model) is Baseline

    def step() -> dict[str, float]:
        seconds = {}
        batch = {**answers, "images": pixels[:real].float()}
        if synthetic:
            batch["synthetic_images"] = pixels[real:].float()
        clock = _Clock(device)
        if teacher is not None:
            with torch.no_grad():
                teacher(teacher_pixels)
        seconds["teacher"] = clock.lap()
        with EventStorage(), torch.autocast(device.partition(":")[0], enabled=amp):
            if is_baseline:
                head_input = model.backbone(model.preprocess_image(batch))
            else:
                real_maps, synthetic_maps = model.student_maps(batch)
                head_input = real_maps.head_input
            seconds["forward"] = clock.lap()
            outputs = model.heads(head_input, answers["targets"])
            losses = model.losses(outputs, answers["targets"])
            if not is_baseline:
                losses |= model.distillation(batch, real_maps, outputs["features"], synthetic_maps)
            total = sum(losses.values())
        seconds["losses"] = clock.lap()
        optimizer.zero_grad()
        total.backward()
        seconds["backward"] = clock.lap()
        optimizer.step()
        seconds["optimiser"] = clock.lap()
        return seconds

    return step


def _vit_l14(device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    import open_clip

    model = open_clip.create_model("ViT-L-14", pretrained=None, precision="fp16" if device.startswith("cuda") else "fp32")
    visual = model.visual.to(device).eval()
    return lambda images: visual(images.half() if device.startswith("cuda") else images)


class _Clock:
    """Seconds between laps; on CUDA only after all queued work is done."""

    def __init__(self, device: str) -> None:
        self.on_cuda = device.startswith("cuda")
        self.lap()

    def lap(self) -> float:
        if self.on_cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        passed = now - getattr(self, "last", now)
        self.last = now
        return passed


def _print(figures: dict[str, Any]) -> None:
    table = Table(
        title=f"{figures['device']}; {figures['config']}; R {figures['real']}, S {figures['synthetic']}; milliseconds a step",
        title_justify="left",
    )
    table.add_column("contestant")
    for name in (*PARTS, "step", "peak MiB"):
        table.add_column(name, justify="right")
    for row in figures["rows"]:
        peak = "-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        table.add_row(
            row["contestant"], *(f"{row[part]:.1f}" for part in PARTS), f"{row['milliseconds']:.1f}", peak
        )
    Console().print(table)
    print("ratios: " + ", ".join(f"{name} = {value:.3f}" for name, value in figures["ratios"].items()))
