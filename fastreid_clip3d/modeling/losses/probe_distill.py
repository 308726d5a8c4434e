"""Global distillation through class logits: the student follows a linear classifier of the teacher's embedding.

R: real images. C: people of the training set. d: width of the teacher.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class ProbeLosses(NamedTuple):
    """What :class:`ProbeDistillLoss` returns, two float32 scalars."""

    distillation: Tensor
    probe: Tensor


class ProbeDistillLoss(nn.Module):
    """``T^2 KL(softmax(p / T) || softmax(s / T))`` with the student's class logits s and the probe's p, not Eq. 8.

    The paper's released code computes L_global in this way. The factor T^2 keeps the gradient's size when T changes
    (Hinton, Vinyals and Dean, 2015). The probe is a linear layer on g, which has mean 0 and variance 1 per coordinate
    over the batch, so that its speed of learning does not depend on the teacher's scale. It learns beside the student:
    by cross-entropy, without label smoothing, since a smoothed teacher says less about classes that look alike (Müller,
    Kornblith and Hinton, 2019).

    The divergence trains the student alone, the cross-entropy the probe alone.

    Args:
        teacher_dim: d.
        num_classes: C.
        temperature: T, above 0.

    Raises:
        ValueError: a size under 1 or a temperature that is not above 0.
    """

    def __init__(self, teacher_dim: int, num_classes: int, temperature: float = 2.0) -> None:
        super().__init__()
        if teacher_dim < 1 or num_classes < 1:
            raise ValueError(f"ProbeDistillLoss: sizes must be at least 1, got {teacher_dim} and {num_classes}")
        if not temperature > 0:
            raise ValueError(f"ProbeDistillLoss: temperature must be above 0, got {temperature}")
        self.probe = nn.Linear(teacher_dim, num_classes)
        self.temperature = float(temperature)

    def forward(self, class_logits: Tensor, teacher_features: Tensor, targets: Tensor) -> ProbeLosses:
        """Both losses, means over the images; 0 for no images.

        Args:
            class_logits: s, [R, C], without a margin.
            teacher_features: g, [R, d], any float type.
            targets: int64 [R], 0 .. C - 1.

        Raises:
            ValueError: the shapes do not belong together.
        """
        expected = (len(teacher_features), self.probe.out_features)
        if tuple(class_logits.shape) != expected or tuple(targets.shape) != expected[:1]:
            raise ValueError(
                f"ProbeDistillLoss: {expected[0]} teacher features need class logits {list(expected)} and targets "
                f"[{expected[0]}], got {list(class_logits.shape)} and {list(targets.shape)}"
            )
        with torch.autocast(device_type=class_logits.device.type, enabled=False):
            if class_logits.dtype.itemsize < 4:
                class_logits = class_logits.float()
            count = max(len(class_logits), 1)
            taught = self.probe(_standardised(teacher_features.detach().to(self.probe.weight.dtype)))
            probe = functional.cross_entropy(taught, targets, reduction="sum") / count
            teacher = (taught.detach().to(class_logits.dtype) / self.temperature).log_softmax(1)
            student = (class_logits / self.temperature).log_softmax(1)
            divergence = functional.kl_div(student, teacher, reduction="sum", log_target=True)
            return ProbeLosses(self.temperature**2 * divergence / count, probe)


def _standardised(features: Tensor) -> Tensor:
    """Mean 0 and variance 1 per coordinate over the images, as batch norm computes them."""
    if not len(features):
        return features
    variance, mean = torch.var_mean(features, dim=0, correction=0)
    return (features - mean) / (variance + 1e-5).sqrt()
