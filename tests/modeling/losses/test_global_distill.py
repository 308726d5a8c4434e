"""L_global against sums written out, all reductions."""

from __future__ import annotations

import math

import pytest
import torch

from fastreid_clip3d.modeling.losses import GlobalDistillLoss


def reference(loss: GlobalDistillLoss, features: torch.Tensor, teacher: torch.Tensor) -> float:
    (w1, b1, w2, b2) = [p.detach().tolist() for p in loss.projection.parameters()]
    targets, given = [], features.tolist()
    for g in teacher.tolist():
        hidden = [max(sum(w * x for w, x in zip(row, g)) + bias, 0.0) for row, bias in zip(w1, b1)]
        targets.append([sum(w * x for w, x in zip(row, hidden)) + bias for row, bias in zip(w2, b2)])
    if loss.reduction == "centred_cosine":
        targets, given = (
            [[x - sum(column) / len(rows) for x, column in zip(row, zip(*rows))] for row in rows]
            for rows in (targets, given)
        )
    total = 0.0
    for f, target in zip(given, targets):
        if "cosine" in loss.reduction:
            target, f = ([x / math.sqrt(sum(y * y for y in vector)) for x in vector] for vector in (target, f))
        squared = sum((t - x) ** 2 for t, x in zip(target, f))
        total += squared / len(f) if loss.reduction == "mean" else squared
    return total / len(features)


@pytest.mark.parametrize("reduction", ["mean", "sum", "cosine", "centred_cosine"])
@pytest.mark.parametrize("hidden_dim", [0, 3])
def test_value_and_gradients(reduction: str, hidden_dim: int) -> None:
    torch.manual_seed(0)
    loss = GlobalDistillLoss(6, 5, hidden_dim, reduction).double()
    features = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 6, dtype=torch.float64)
    assert loss(features, teacher).item() == pytest.approx(reference(loss, features, teacher), rel=1e-12)
    assert loss.projection[0].out_features == (hidden_dim or 5)
    assert torch.autograd.gradcheck(lambda f: loss(f, teacher), (features,))
    loss(features, teacher).backward()
    last_bias = loss.projection[-1].bias
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters() if p is not last_bias)
    assert (last_bias.grad.abs().sum() < 1e-12) == (reduction == "centred_cosine")  # the same for all images


def test_mean_is_torchs_mean_squared_error() -> None:
    loss = GlobalDistillLoss(6, 5)
    features, teacher = torch.randn(4, 5), torch.randn(4, 6)
    expected = torch.nn.functional.mse_loss(features, loss.projection(teacher))
    torch.testing.assert_close(loss(features, teacher), expected)


def test_half_precision_inputs_are_summed_in_float32() -> None:
    loss = GlobalDistillLoss(6, 4000, 8, "sum")
    features = torch.full((2, 4000), 100.0, dtype=torch.float16)  # the sum of squares, 4e7, is out of float16's range
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(features, torch.randn(2, 6).half())
    assert value.dtype == torch.float32 and value.item() == pytest.approx(4e7, rel=0.05)


def test_no_images_give_a_zero_in_the_graph() -> None:
    loss = GlobalDistillLoss(6, 5)
    value = loss(torch.zeros(0, 5), torch.zeros(0, 6))
    value.backward()
    assert value.item() == 0 and all(p.grad.abs().sum() == 0 for p in loss.parameters())


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="reduction"):
        GlobalDistillLoss(6, 5, reduction="none")
    with pytest.raises(ValueError, match="3 student features and 1 teacher"):
        GlobalDistillLoss(6, 5)(torch.zeros(3, 5), torch.zeros(1, 6))


def test_cosine_cannot_be_met_by_shrinking() -> None:
    """The mean falls when f_id shrinks; the cosine does not change."""
    torch.manual_seed(1)
    features, teacher = torch.randn(8, 5), torch.randn(8, 6)
    losses = {name: GlobalDistillLoss(6, 5, 0, name) for name in ("mean", "cosine")}
    for loss in losses.values():
        loss.load_state_dict(losses["mean"].state_dict())
    assert losses["mean"](0.1 * features, teacher) < losses["mean"](features, teacher)
    torch.testing.assert_close(losses["cosine"](0.1 * features, teacher), losses["cosine"](features, teacher))
    zero = torch.zeros(8, 5, requires_grad=True)
    losses["cosine"](zero, teacher).backward()
    assert torch.isfinite(zero.grad).all()


def test_centred_cosine_cannot_be_met_by_what_all_images_share() -> None:
    """Pooled features are positive: a constant target is near all of them, unless their mean is subtracted."""
    torch.manual_seed(2)
    features, teacher = 5 + torch.randn(8, 6), torch.randn(8, 6)
    values = {}
    for name in ("cosine", "centred_cosine"):
        loss = GlobalDistillLoss(6, 6, 0, name)
        with torch.no_grad():
            loss.projection[-1].weight.mul_(0.01)
            loss.projection[-1].bias.fill_(5.0)  # nearly constant: it knows nothing of g
        values[name] = loss(features, teacher).item()
    assert values["cosine"] < 0.1 and values["centred_cosine"] > 1.0


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_is_not_centred_and_two_are(count: int) -> None:
    """Minus its mean, a single image would be zero, which has no direction."""
    torch.manual_seed(3)
    centred = GlobalDistillLoss(6, 5, 0, "centred_cosine").double()
    plain = GlobalDistillLoss(6, 5, 0, "cosine").double()
    plain.load_state_dict(centred.state_dict())
    features, teacher = torch.randn(count, 5, dtype=torch.float64), torch.randn(count, 6, dtype=torch.float64)
    expected = plain if count == 1 else centred
    assert centred(features, teacher).item() == pytest.approx(reference(expected, features, teacher), rel=1e-9)
