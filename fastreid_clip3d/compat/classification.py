"""fast-reid's cross-entropy and accuracy, with the same values, that ask the device for nothing.

On CUDA every question waits until all queued work is done, and the device then waits for the next kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

ON_DEVICE = "_values_on_device"
"""Attribute of fast-reid's event storage: scalars by name, which ``metrics.write_metrics`` copies with the losses."""


def cross_entropy_loss(pred_class_outputs: Tensor, gt_classes: Tensor, eps: float, alpha: float = 0.2) -> Tensor:
    """Cross-entropy with label smoothing, averaged over the images whose loss is not 0; the signature is fast-reid's.

    Args:
        pred_class_outputs: logits [B, C]. gt_classes: int64 [B].
        eps: weight that is spread over the other classes; negative: `alpha` times the predicted probability.
    """
    if eps >= 0:
        smooth: Tensor | float = eps
    else:
        smooth = alpha * functional.softmax(pred_class_outputs, dim=1).gather(1, gt_classes[:, None])
    log_probabilities = functional.log_softmax(pred_class_outputs, dim=1)
    with torch.no_grad():
        targets = torch.ones_like(log_probabilities) * (smooth / (pred_class_outputs.size(1) - 1))
        own = 1 - smooth if isinstance(smooth, Tensor) else torch.full_like(targets[:, :1], 1 - smooth)
        targets.scatter_(1, gt_classes[:, None], own.to(targets.dtype))
    loss = (-targets * log_probabilities).sum(dim=1)
    return loss.sum() / (loss.detach() != 0).sum().clamp(min=1)


def log_accuracy(pred_class_logits: Tensor, gt_classes: Tensor, topk: Sequence[int] = (1,)) -> None:
    """Leaves the share of images whose class is among the first ``topk[0]`` for the log, as ``cls_accuracy``."""
    from fastreid.utils.events import get_event_storage

    found = pred_class_logits.topk(topk[0], dim=1).indices == gt_classes[:, None]
    waiting = vars(get_event_storage()).setdefault(ON_DEVICE, {})
    waiting["cls_accuracy"] = found.sum() / len(found)


def asks_the_device(function: Callable[..., Any], *more: Any) -> bool:
    """Whether a function of logits and classes asks for a value: on torch's meta device, which has none, that fails."""
    from fastreid.utils.events import EventStorage

    logits = torch.zeros(2, 3, device="meta")
    classes = torch.zeros(2, dtype=torch.int64, device="meta")
    with EventStorage():
        try:
            function(logits, classes, *more)
        except (RuntimeError, NotImplementedError):
            return True
    return False


def cross_entropy_asks(function: Callable[..., Any]) -> bool:
    """:func:`asks_the_device` for a cross-entropy."""
    return asks_the_device(function, 0.1)
