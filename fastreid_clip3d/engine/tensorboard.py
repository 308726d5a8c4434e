"""What TensorBoard and metrics.json show beyond fast-reid's losses and learning rate.

- ``images_per_second``: real images through a whole step, data included, all processes together.
- ``gradient_share/<loss>``: how much of the pull on the student's feature map each loss has, 0..1 (see
  :class:`GradientShares`).
- images ``<dataset>/<protocol>``: after an evaluation, the top matches of four fixed queries, hits and misses framed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from fastreid.config import CfgNode
from fastreid.engine import HookBase, hooks
from fastreid.utils import comm, events
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, ProtocolResult

logger = logging.getLogger(__name__)

SHARE = "gradient_share/"
SHOWN_QUERIES = 4
SHOWN_MATCHES = 8


def with_measurements(chosen: list[HookBase], cfg: CfgNode) -> list[HookBase]:
    """A trainer's hooks with our measurements: just before the writers, or last where a process writes nothing."""
    ours: list[HookBase] = [Throughput(cfg.SOLVER.IMS_PER_BATCH)]
    period = cfg.TENSORBOARD.GRADIENT_SHARES_PERIOD
    if period > 0:
        ours.append(GradientShares(period))
    place = next((row for row, hook in enumerate(chosen) if isinstance(hook, hooks.PeriodicWriter)), len(chosen))
    return [*chosen[:place], *ours, *chosen[place:]]


class Throughput(HookBase):
    """Writes ``images_per_second`` from the time that fast-reid's timer has taken for the step."""

    def __init__(self, images_per_step: int) -> None:
        self.images_per_step = images_per_step

    def after_step(self) -> None:
        seconds, iteration = self.trainer.storage.latest().get("time", (0.0, -1))
        if iteration == self.trainer.iter and seconds > 0:
            self.trainer.storage.put_scalar("images_per_second", self.images_per_step / seconds)


class GradientShares(HookBase):
    """Every `period` iterations, the norm of each weighted loss's gradient, divided by the sum of these norms.

    The gradient is the one with respect to the student's feature map F (real and synthetic half together), which every
    loss reads: a loss's own layers (Psi, Phi, phi, the classifier) are passed through, the backbone is not. It costs
    one backward pass through head and losses for each loss. The training's own graph is kept and used afterwards as it
    is: the steps are the same with and without. A head that reads another output of the backbone (a transformer's class
    token) counts with that.

    All processes measure, since layers with synchronised statistics need all of them; rank 0 writes its shares.
    """

    def __init__(self, period: int) -> None:
        self.period = period
        self._undo: Callable[[], None] | None = None

    def before_step(self) -> None:
        if (self.trainer.iter + 1) % self.period == 0:
            self._undo = self._watch(unwrapped(self.trainer.model))

    def after_step(self) -> None:
        self._stop()

    def after_train(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None

    def _watch(self, model: nn.Module) -> Callable[[], None]:
        maps: list[Tensor] = []
        forget = collect_maps(model, maps)

        def measure(_: nn.Module, __: Any, losses: Any) -> None:
            if model.training and isinstance(losses, Mapping) and maps:
                self._write(gradient_shares(losses, maps, self._scale()))

        handle = model.register_forward_hook(measure)

        def undo() -> None:
            forget()
            handle.remove()

        return undo

    def _scale(self) -> float:
        """What AMP multiplies the losses by, so that half-precision gradients do not vanish here either."""
        scaler = getattr(self.trainer, "grad_scaler", None)
        return float(scaler.get_scale()) if scaler is not None else 1.0

    def _write(self, shares: dict[str, float]) -> None:
        if comm.is_main_process():
            for name, share in shares.items():
                self.trainer.storage.put_scalar(SHARE + name.removeprefix("loss_"), share, smoothing_hint=False)


def unwrapped(model: nn.Module) -> Any:
    """The model inside ``DistributedDataParallel``."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def collect_maps(model: Any, maps: list[Tensor]) -> Callable[[], None]:
    """From now on the backbone's outputs of each forward pass are put into `maps`; returns what ends it."""
    if hasattr(model, "student_maps"):
        original = model.student_maps

        def student_maps(batch: dict[str, Any]) -> Any:
            halves = original(batch)
            for half in halves:
                if half is not None:
                    maps.extend({id(part): part for part in half}.values())
            return halves

        model.student_maps = student_maps  # shadows the method on this one object
        return lambda: delattr(model, "student_maps")
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        return lambda: None
    handle = backbone.register_forward_hook(
        lambda _, __, output: maps.append(output) if isinstance(output, Tensor) else None
    )
    return handle.remove


def gradient_shares(losses: Mapping[str, Tensor], maps: list[Tensor], scale: float = 1.0) -> dict[str, float]:
    """Each loss's share of the :func:`gradient_norms`, by name; they sum to 1.

    An empty dict where a norm is not finite or all are zero.
    """
    norms = gradient_norms(losses, maps, scale)
    total = sum(norms.values())
    return {name: norm / total for name, norm in norms.items()} if np.isfinite(total) and total > 0 else {}


def gradient_norms(losses: Mapping[str, Tensor], maps: list[Tensor], scale: float = 1.0) -> dict[str, float]:
    """Norm of each loss's gradient with respect to `maps`, times `scale`, by name; 0 for a loss that none reaches."""
    norms = {}
    for name, loss in losses.items():
        if not loss.requires_grad:
            norms[name] = 0.0
            continue
        found = torch.autograd.grad(loss * scale, maps, retain_graph=True, allow_unused=True)
        squares = [part.detach().double().square().sum() for part in found if part is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms


def show_matches(
    dataset_name: str, query: LabelledFeatures, gallery: LabelledFeatures, results: Mapping[str, ProtocolResult]
) -> None:
    """Puts the top matches of the same few queries into TensorBoard; nothing outside a training.

    By plain distances of the first protocol that uses the whole gallery, whatever re-ranking does. A picture that
    cannot be drawn is a line in the log and never ends the training.
    """
    if not events._CURRENT_STORAGE_STACK:
        return
    usable = [result for result in results.values() if not result.protocol.single_shot_draws and len(result.queries)]
    if not usable:
        return
    from fastreid_clip3d.visualization.ranking import RankedModel, choose_queries, draw_ranking

    result = usable[0]
    chosen = choose_queries(result.queries, query.pids, SHOWN_QUERIES)
    asked = _rows_of(query, np.asarray(chosen))
    try:
        sheet = draw_ranking(
            [RankedModel("", asked, gallery)], result.protocol, range(len(chosen)), SHOWN_MATCHES, tile=(48, 96)
        )
    except ClearError as error:
        logger.info(f"No row of images for TensorBoard: {error}")
        return
    pixels = np.asarray(sheet).transpose(2, 0, 1)
    events.get_event_storage().put_image(f"{dataset_name}/{result.protocol.name}", pixels)


def _rows_of(items: LabelledFeatures, rows: np.ndarray) -> LabelledFeatures:
    return LabelledFeatures(
        items.features[torch.from_numpy(rows)],
        items.pids[rows],
        items.camids[rows],
        None if items.clothes_ids is None else items.clothes_ids[rows],
        tuple(items.names[row] for row in rows) if items.names else (),
    )
