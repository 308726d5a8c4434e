"""Every loss and the solver: value and gradients as on a CPU in float64, in each precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from fastreid.modeling.losses import cross_entropy_loss, pairwise_circleloss, pairwise_cosface, triplet_loss
from torch import Tensor, nn

from fastreid_clip3d.modeling.losses import (
    BodyShapeLoss,
    ClothesAdversarialLoss,
    GlobalDistillLoss,
    OTLoss,
    sinkhorn,
)
from tests.cuda.precision import PRECISIONS, Compute, assert_agrees, relative_difference

IMAGES, PATCHES, PHRASES, TEXT, WIDTH = 6, 12, 16, 24, 32


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def transport(**settings: float) -> tuple[nn.Module, Compute, dict[str, Tensor]]:
    def compute(loss: nn.Module, given: Mapping[str, Tensor]) -> Tensor:
        return loss(given["local_features"], loss.project(given["phrases"]), given["choices"])

    choices = torch.arange(IMAGES * PHRASES).reshape(IMAGES, PHRASES) % 3 % 2
    inputs = {
        "local_features": draw(IMAGES, PATCHES, WIDTH, seed=1),
        "phrases": draw(2 * PHRASES, TEXT, seed=2),
        "choices": choices,
    }
    return OTLoss(TEXT, WIDTH, **settings), compute, inputs


def distillation(reduction: str) -> tuple[nn.Module, Compute, dict[str, Tensor]]:
    inputs = {"features": draw(IMAGES, WIDTH, seed=3), "teacher_features": draw(IMAGES, TEXT, seed=4)}
    loss = GlobalDistillLoss(TEXT, WIDTH, reduction=reduction)
    return loss, lambda loss, given: loss(given["features"], given["teacher_features"]), inputs


def body_shape() -> tuple[nn.Module, Compute, dict[str, Tensor]]:
    spaces = [(draw(50, 3, seed=seed), draw(50, 3, 10, seed=seed + 10)) for seed in (5, 6, 7)]
    inputs = {
        "features": draw(IMAGES, WIDTH, seed=8),
        "betas": draw(IMAGES, 10, seed=9),
        "gender": torch.arange(IMAGES) % 2,
    }
    loss = BodyShapeLoss(WIDTH, 0, spaces[0], spaces[1:])
    return loss, lambda loss, given: loss(given["features"], given["betas"], given["gender"]), inputs


def clothes() -> tuple[nn.Module, Compute, dict[str, Tensor]]:
    inputs = {"features": draw(IMAGES, WIDTH, seed=10), "clothes": torch.tensor([0, 1, 2, 3, -1, 4])}
    loss = ClothesAdversarialLoss(WIDTH, torch.tensor([0, 0, 1, 1, 2]))
    return loss, lambda loss, given: sum(loss(given["features"], given["clothes"]).values()), inputs


def of_fastreid(function: Callable[..., Tensor], *settings: float) -> tuple[nn.Module, Compute, dict[str, Tensor]]:
    inputs = {"features": draw(IMAGES, WIDTH, seed=11), "targets": torch.arange(IMAGES) % 3}
    return nn.Identity(), lambda _, given: function(given["features"], given["targets"], *settings), inputs


def plan(**settings: float) -> tuple[nn.Module, Compute, dict[str, Tensor]]:
    weights = draw(IMAGES, PATCHES, PHRASES, seed=12)

    def compute(_: nn.Module, given: Mapping[str, Tensor]) -> Tensor:
        found = sinkhorn(given["cost"], **settings)
        return (found * weights.to(found)).sum()

    return nn.Identity(), compute, {"cost": draw(IMAGES, PATCHES, PHRASES, seed=13).sigmoid() * 2}


CASES = {
    "OT loss": lambda: transport(),
    "OT loss, 50 iterations": lambda: transport(num_iters=50, reg=0.1),
    "OT loss, differentiated through 20 iterations": lambda: transport(num_iters=20, reg=0.2, differentiable=True),
    "OT loss, logarithms": lambda: transport(num_iters=20, reg=0.04),
    "OT loss with contrast": lambda: transport(contrast=0.5),
    "global distillation, mean": lambda: distillation("mean"),
    "global distillation, sum": lambda: distillation("sum"),
    "body shape": body_shape,
    "clothes": clothes,
    "solver": lambda: plan(reg=0.5, num_iters=10),
    "solver, logarithms": lambda: plan(reg=0.05, num_iters=10, log_domain=True),
    "cross-entropy": lambda: of_fastreid(cross_entropy_loss, 0.1),
    "cross-entropy, adaptive smoothing": lambda: of_fastreid(cross_entropy_loss, -1.0),
    "triplet": lambda: of_fastreid(triplet_loss, 0.3, False, True),
    "circle": lambda: of_fastreid(pairwise_circleloss, 0.25, 4.0),
    "cosface": lambda: of_fastreid(pairwise_cosface, 0.25, 4.0),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients(case: str, precision: str, device: str) -> None:
    torch.manual_seed(0)
    module, compute, inputs = CASES[case]()
    if precision == "float64" and case in ("circle", "cosface"):
        pytest.skip("fast-reid computes them in float32")
    assert_agrees(compute, module, inputs, device, precision)


def test_a_wrong_value_and_a_missing_one_are_noticed() -> None:
    one = torch.ones(3)
    assert relative_difference(one, one) == 0
    assert relative_difference(1.1 * one, one) == pytest.approx(0.1)
    assert relative_difference(torch.tensor([1, float("nan"), 1]), one) == float("inf")
    module, compute, inputs = distillation("mean")
    with pytest.raises(AssertionError):
        assert_agrees(lambda *given: compute(*given) * (1 + 0.1 * (given[1]["features"].dtype == torch.float32)),
                      module, inputs, "cpu", "float32")  # fmt: skip
