"""Distillation through class logits against sums by hand; who learns from which of its two losses."""

from __future__ import annotations

import pytest
import torch

from fastreid_clip3d.modeling.losses import ProbeDistillLoss
from tests.references import probe_distill as reference

TEACHER_DIM, CLASSES = 6, 4


def inputs(seed: int = 0, images: int = 5, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, CLASSES, generator=generator, dtype=dtype)
    teacher = 0.1 * torch.randn(images, TEACHER_DIM, generator=generator, dtype=dtype) + 2
    return logits, teacher, torch.randint(0, CLASSES, (images,), generator=generator)


def make_loss(seed: int = 0, temperature: float = 2.0) -> ProbeDistillLoss:
    torch.manual_seed(seed)
    loss = ProbeDistillLoss(TEACHER_DIM, CLASSES, temperature)
    torch.nn.init.normal_(loss.probe.weight)
    torch.nn.init.normal_(loss.probe.bias)
    return loss


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_values_and_gradients(temperature: float) -> None:
    loss = make_loss(temperature=temperature).double()
    logits, teacher, targets = inputs()
    logits.requires_grad_()
    losses = loss(logits, teacher, targets)
    taught = reference.probe_logits(teacher.tolist(), loss.probe.weight.tolist(), loss.probe.bias.tolist())
    student = logits.tolist()
    expected = reference.divergence(student, taught, temperature)
    assert losses.distillation.item() == pytest.approx(expected, rel=1e-9)
    assert losses.probe.item() == pytest.approx(reference.cross_entropy(taught, targets.tolist()), rel=1e-9)
    (losses.distillation + losses.probe).backward()
    slope = torch.tensor(reference.divergence_gradient(student, taught, temperature), dtype=torch.float64)
    torch.testing.assert_close(logits.grad, slope)
    slope = torch.tensor(reference.cross_entropy_bias_gradient(taught, targets.tolist()), dtype=torch.float64)
    torch.testing.assert_close(loss.probe.bias.grad, slope)


def test_the_divergence_teaches_the_student_alone_and_the_cross_entropy_the_probe_alone() -> None:
    loss = make_loss()
    logits, teacher, targets = inputs(1, dtype=torch.float32)
    logits.requires_grad_()
    teacher.requires_grad_()
    own = [logits, teacher, *loss.parameters()]
    losses = loss(logits, teacher, targets)
    found = {
        name: [g is not None for g in torch.autograd.grad(value, own, retain_graph=True, allow_unused=True)]
        for name, value in losses._asdict().items()
    }
    assert found == {"distillation": [True, False, False, False], "probe": [False, False, True, True]}


def test_equal_logits_cost_nothing() -> None:
    loss = make_loss()
    _, teacher, targets = inputs(2, dtype=torch.float32)
    with torch.no_grad():
        taught = loss.probe((teacher - teacher.mean(0)) / (teacher.var(0, unbiased=False) + 1e-5).sqrt())
    assert loss(taught, teacher, targets).distillation.item() == pytest.approx(0, abs=1e-6)


def test_the_probe_learns_people_from_a_teacher_of_any_scale() -> None:
    torch.manual_seed(3)
    centres, targets = torch.randn(CLASSES, TEACHER_DIM), torch.arange(40) % CLASSES
    for scale in (0.1, 10.0):
        loss = make_loss()
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
        for _ in range(300):
            teacher = scale * (centres[targets] + 0.1 * torch.randn(40, TEACHER_DIM) + 5)
            optimizer.zero_grad()
            losses = loss(torch.zeros(40, CLASSES), teacher, targets)
            losses.probe.backward()
            optimizer.step()
        assert losses.probe.item() < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_under_autocast(dtype: torch.dtype) -> None:
    loss = make_loss()
    logits, teacher, targets = inputs(4, dtype=torch.float32)
    logits, teacher = logits.to(dtype), teacher.to(dtype)
    expected = loss.double()(logits.double(), teacher.double(), targets)
    loss.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(logits, teacher, targets)
    for one, other in zip(found, expected):
        assert one.dtype == torch.float32 and one.item() == pytest.approx(other.item(), rel=1e-5)


def test_no_images_give_zeros_in_the_graph() -> None:
    loss = make_loss()
    logits = torch.zeros(0, CLASSES, requires_grad=True)
    losses = loss(logits, torch.zeros(0, TEACHER_DIM), torch.zeros(0, dtype=torch.int64))
    sum(losses).backward()
    assert [value.item() for value in losses] == [0, 0] and loss.probe.weight.grad.abs().sum() == 0


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        ProbeDistillLoss(TEACHER_DIM, CLASSES, 0.0)
    with pytest.raises(ValueError, match="sizes must be at least 1"):
        ProbeDistillLoss(TEACHER_DIM, 0)
    logits, teacher, targets = inputs(5, dtype=torch.float32)
    with pytest.raises(ValueError, match="5 teacher features need class logits .5, 4. and targets .5., got .5, 3."):
        make_loss()(logits[:, :3], teacher, targets)
