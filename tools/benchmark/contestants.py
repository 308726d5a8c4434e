"""The models whose training steps the benchmark compares, each with its optimiser and a batch of random pixels."""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import torch

from tools.benchmark.floor import DTYPES
from tools.benchmark.memory import tensors_mib

TEACHER_WIDTH = 768
"""Width of ViT-L/14's embeddings."""


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


def has_synthetic_half(cfg: Any) -> bool:
    """Whether a loss of this config needs synthetic images."""
    names, scale = cfg.MODEL.LOSSES.NAME, cfg.MODEL.LOSSES.OT.SYNTHETIC_SCALE
    return "BodyShapeLoss" in names or ("OTLoss" in names and scale > 0)


def contestant_config(arguments: argparse.Namespace, device: str, kind: Kind) -> Any:
    """The config of --config-file, changed so that the contestant does what `kind` says.

    Raises:
        ClearError: the config is not one of the method.
    """
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
        self.cfg = cfg = contestant_config(arguments, device, kind)
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
