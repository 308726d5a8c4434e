"""A training step of the method, by part, beside fast-reid's baseline step on the same number of images.

R real and S = R synthetic images a step. The steps that are compared work on random pixels in memory, since their time
does not depend on what the pixels show; whether reading files keeps up is measured apart, with training's own loader.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tools.benchmark.figures import write_figures
from tools.benchmark.floor import DTYPES, busy_share, floor_milliseconds, machine_rates, step_work
from tools.benchmark.memory import mib_text, peak_mib, tensors_mib

PARTS = ("teacher", "forward", "losses", "backward", "optimiser")
LIMITS = {"cpu": {"b/a": 1.10, "c/a2": 1.10}, "cuda": {"b/a": 1.05, "c/a2": 1.05}}
"""What a step of ours may cost, by fast-reid's step on as many images."""
DATA_LIMIT = {"cpu": 0.05, "cuda": 0.02}
"""Share of a step that may be spent waiting for data."""
TEACHER_WIDTH = 768
PERSONS_IN_FILES, PHOTOS_OF_A_PERSON = 64, 8


class Kind(NamedTuple):
    """What a contestant does: whose step, on which halves of the batch, with the teacher in every step or not."""

    baseline: bool = False
    real: bool = True
    synthetic: bool = False
    online: bool = False


CONTESTANTS = {
    "a  Baseline, R": Kind(baseline=True),
    "b  ours, R": Kind(),
    "a2 Baseline, R + S": Kind(baseline=True, synthetic=True),
    "c  ours, R + S": Kind(synthetic=True),
    "s  ours, S alone": Kind(real=False, synthetic=True),
    "d  ours, R, ViT-L/14 online": Kind(online=True),
}


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
        help="of the arithmetic; float16 on CUDA only (float32)",
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
    has_synthetic_half = _has_synthetic_half(_config(arguments, device, Kind(synthetic=True)))
    contestants = {
        name: Contestant(arguments, device, kind, real)
        for name, kind in CONTESTANTS.items()
        if (has_synthetic_half or not kind.synthetic) and not (arguments.no_online and kind.online)
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    peaks: dict[str, float | None] = {}
    for turn in range(steps + 2):  # the first turn warms up, the second one measures memory
        for name, contestant in contestants.items():
            if turn == 1:
                added, _ = peak_mib(contestant.step, device)
                peaks[name] = None if added is None else added + contestant.state_mib()
                continue
            parts = contestant.step()
            if turn:
                taken[name].append(parts)
    rates = machine_rates(device, arguments.precision)
    rows = []
    for name, turns in taken.items():
        contestant = contestants[name]
        work = None if contestant.kind.online else step_work(contestant.step, contestant.model, contestant.optimizer)
        more = {
            "busy_share": busy_share(contestant.step, device),
            "work": work,
            "floor": None if work is None else floor_milliseconds(work, rates),
        }
        parts = {part: 1000 * statistics.median(turn[part] for turn in turns) for part in PARTS}
        total = 1000 * statistics.median(sum(turn.values()) for turn in turns)
        rows.append({"contestant": name, **parts, "milliseconds": total, "peak_mib": peaks[name], **more})
    by_name = {row["contestant"][:2].strip(): row["milliseconds"] for row in rows}
    ratios = {
        f"{ours}/{theirs}": by_name[ours] / by_name[theirs]
        for ours, theirs in (("b", "a"), ("c", "a2"), ("d", "a"))
        if ours in by_name
    }
    limits = {name: limit for name, limit in LIMITS["cuda" if on_cuda else "cpu"].items() if name in ratios}
    loading = None
    if arguments.workers:
        whole = contestants["c  ours, R + S" if has_synthetic_half else "b  ours, R"]
        loading = _loading(arguments, whole, steps)
    figures = {
        "device": torch.cuda.get_device_name() if on_cuda else f"cpu, {torch.get_num_threads()} threads",
        "config": arguments.config_file,
        "options": list(arguments.options),
        "real": real,
        "synthetic": real if has_synthetic_half else 0,
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


def _has_synthetic_half(cfg: Any) -> bool:
    names, scale = cfg.MODEL.LOSSES.NAME, cfg.MODEL.LOSSES.OT.SYNTHETIC_SCALE
    return "BodyShapeLoss" in names or ("OTLoss" in names and scale > 0)


def _config(arguments: argparse.Namespace, device: str, kind: Kind) -> Any:
    from fastreid_clip3d.config_loading import load_config
    from fastreid_clip3d.errors import ClearError

    cfg = load_config(arguments.config_file, arguments.options)
    if cfg.MODEL.META_ARCHITECTURE != "CLIP3DReID":
        raise ClearError(f"{arguments.config_file}: this benchmark needs a config of the method (CLIP3DReID).")
    cfg.MODEL.DEVICE = device
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.HEADS.NUM_CLASSES = 632
    names = cfg.MODEL.LOSSES.NAME
    if kind.baseline:
        cfg.MODEL.META_ARCHITECTURE = "Baseline"
        cfg.MODEL.HEADS.NAME = "EmbeddingHead"
        cfg.MODEL.LOSSES.NAME = ("CrossEntropyLoss",)
    elif not kind.real:
        cfg.MODEL.LOSSES.NAME = tuple(name for name in names if name in ("OTLoss", "BodyShapeLoss"))
        cfg.MODEL.LOSSES.OT.SCALE = 0.0
    elif not kind.synthetic:
        cfg.MODEL.LOSSES.NAME = tuple(name for name in names if name != "BodyShapeLoss")
        cfg.MODEL.LOSSES.OT.SYNTHETIC_SCALE = 0.0
    return cfg


class Contestant:
    """A model, its optimiser and a batch; :meth:`step` does one training step and returns the seconds of its parts."""

    def __init__(self, arguments: argparse.Namespace, device: str, kind: Kind, real: int) -> None:
        from fastreid.modeling.meta_arch import build_model
        from fastreid.solver import build_optimizer

        from fastreid_clip3d.modeling.backbones.compiling import compile_student
        from fastreid_clip3d.modeling.meta_arch.clip3d_reid import CLIP3DReID
        from fastreid_clip3d.teacher.guidance import Guidance

        self.kind, self.device, self.dtype = kind, device, DTYPES[arguments.precision]
        self.cfg = cfg = _config(arguments, device, kind)
        torch.manual_seed(0)
        guidance = Guidance(torch.randn(32, TEACHER_WIDTH))
        model = build_model(cfg) if kind.baseline else CLIP3DReID(cfg, guidance=guidance).to(device)
        if kind.baseline and cfg.MODEL.COMPILE:  # fast-reid has no such key; compared is like with like
            compile_student(model.backbone)
        self.model = model.train()
        self.optimizer, _ = build_optimizer(cfg, self.model)
        self.scaler = torch.amp.GradScaler(device.partition(":")[0], enabled=self.dtype is torch.float16)
        self.teacher = _vit_l14(device) if kind.online else None
        self.batch = self._random_batch(real)
        self.teacher_pixels = torch.rand(real, 3, 224, 224, device=device) if kind.online else None

    def _random_batch(self, count: int) -> dict[str, torch.Tensor]:
        """A batch on the device, as training's loader gives it; the baseline gets R + S images as real ones."""
        kind, device = self.kind, self.device
        real = 2 * count if kind.baseline and kind.synthetic else count
        layout = torch.channels_last if self.cfg.MODEL.CHANNELS_LAST else torch.contiguous_format

        def pixels(images: int) -> torch.Tensor:
            shape = (images, 3, *self.cfg.INPUT.SIZE_TRAIN)
            return torch.randint(0, 256, shape, device=device).float().contiguous(memory_format=layout)

        batch = {}
        if kind.real:
            batch = {
                "images": pixels(real),
                "targets": torch.arange(real, device=device) // 4,
                "clothes_ids": torch.zeros(real, dtype=torch.int64, device=device),
                "teacher_features": torch.randn(real, TEACHER_WIDTH, device=device),
                "phrase_choices": torch.randint(0, 2, (real, 16), device=device),
            }
        if kind.synthetic and not kind.baseline:
            batch |= {
                "synthetic_images": pixels(count),
                "synthetic_betas": torch.randn(count, self.cfg.MODEL.BODY.NUM_BETAS, device=device),
                "synthetic_gender": torch.arange(count, device=device) % 2,
                "synthetic_phrase_choices": torch.randint(0, 2, (count, 16), device=device),
            }
        return batch

    def step(self, batch: dict[str, torch.Tensor] | None = None) -> dict[str, float]:
        """One step on `batch` (the random one by default)."""
        from fastreid.utils.events import EventStorage

        batch = dict(self.batch if batch is None else batch)
        for key in ("images", "synthetic_images"):
            if key in batch:
                batch[key] = batch[key].clone()  # the student normalises them in place
        seconds, clock = {}, _Clock(self.device)
        if self.teacher is not None:
            with torch.no_grad():
                self.teacher(self.teacher_pixels)
        seconds["teacher"] = clock.lap()
        lower = self.dtype is not torch.float32
        with (
            EventStorage(),
            torch.autocast(self.device.partition(":")[0], self.dtype if lower else None, enabled=lower),
        ):
            maps = self._forward(batch)
            seconds["forward"] = clock.lap()
            total = self._total_loss(batch, *maps)
        seconds["losses"] = clock.lap()
        self.optimizer.zero_grad()
        self.scaler.scale(total).backward()
        seconds["backward"] = clock.lap()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        seconds["optimiser"] = clock.lap()
        return seconds

    def _forward(self, batch: dict[str, torch.Tensor]) -> tuple[Any, Any]:
        """The student's feature maps of the real and of the synthetic half."""
        from fastreid_clip3d.modeling.backbones.build import student_maps

        model = self.model
        if self.kind.baseline:
            return model.backbone(model.preprocess_image(batch)), None
        if not self.kind.real:
            return None, student_maps(model.backbone, model.preprocess_image(batch["synthetic_images"]))
        return model.student_maps(batch)

    def _total_loss(self, batch: dict[str, torch.Tensor], real: Any, synthetic: Any) -> torch.Tensor:
        model, losses, outputs = self.model, {}, None
        if real is not None:
            outputs = model.heads(real if self.kind.baseline else real.head_input, batch["targets"])
            losses = model.losses(outputs, batch["targets"])
        if not self.kind.baseline:
            losses |= model.distillation(batch, real, outputs, synthetic)
        return sum(losses.values())

    def state_mib(self) -> float:
        """What there is before a step: weights, gradients, optimiser state, the batch, the teacher."""
        weights = [*self.model.parameters(), *self.model.buffers()]
        if self.teacher is not None:
            weights += [*self.teacher.parameters(), self.teacher_pixels]
        state = [value for of_weight in self.optimizer.state.values() for value in of_weight.values()]
        gradients = [weight.grad for weight in weights]
        return tensors_mib(t for t in [*weights, *gradients, *state, *self.batch.values()] if torch.is_tensor(t))


class _Teacher(torch.nn.Module):
    def __init__(self, device: str) -> None:
        super().__init__()
        import open_clip

        self.half_precision = device.startswith("cuda")
        precision = "fp16" if self.half_precision else "fp32"
        self.visual = open_clip.create_model("ViT-L-14", pretrained=None, precision=precision).visual.to(device).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.visual(images.half() if self.half_precision else images)


def _vit_l14(device: str) -> torch.nn.Module:
    return _Teacher(device)


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


# -- reading --


class _Answers:
    """A cached teacher's answers without a cache; looking one up costs next to nothing in training too."""

    def lookup(self, path: str, flipped: bool) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(TEACHER_WIDTH), torch.zeros(16, dtype=torch.int64)


def _loading(arguments: argparse.Namespace, contestant: Contestant, steps: int) -> dict[str, Any]:
    """How long steps wait for training's own loader, and how many images a second it gives when nobody else works."""
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

    from fastreid_clip3d.body.synthetic_writer import SyntheticSet, SyntheticSettings
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


# -- telling --


def _print(figures: dict[str, Any]) -> None:
    table = Table(
        title=f"{figures['device']}, {figures['precision']}; {figures['config']}; R {figures['real']}, "
        f"S {figures['synthetic']}; milliseconds a step",
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
