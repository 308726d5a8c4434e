"""CAL against its definition, class by class, and who learns from which of its two losses."""

from __future__ import annotations

import pytest
import torch

from fastreid_clip3d.modeling.losses import ClothesAdversarialLoss
from tests.references.clothes_adversarial import clothes_losses

CLOTHES_PIDS = [0, 0, 1, 0, 2, 1, 3]
FEAT_DIM = 4


def make_loss(seed: int = 0, clothes_pids=tuple(CLOTHES_PIDS), **settings) -> ClothesAdversarialLoss:
    torch.manual_seed(seed)
    return ClothesAdversarialLoss(FEAT_DIM, torch.tensor(clothes_pids), **settings)


def make_batch(seed: int, count: int = 6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, FEAT_DIM, generator=generator, dtype=dtype)
    return features, torch.randint(0, len(CLOTHES_PIDS), (count,), generator=generator)


@pytest.mark.parametrize("seed, scale, epsilon", [(0, 16.0, 0.1), (1, 4.0, 1.0), (2, 1.0, 0.0), (3, 30.0, 0.5)])
def test_values_against_the_definition(seed: int, scale: float, epsilon: float) -> None:
    loss = make_loss(seed, scale=scale, epsilon=epsilon).double()
    features, clothes_ids = make_batch(seed)
    losses = loss(features, clothes_ids)
    expected = clothes_losses(
        features.tolist(), loss.weight.tolist(), clothes_ids.tolist(), CLOTHES_PIDS, scale, epsilon
    )
    assert losses["loss_clothes"].item() == pytest.approx(expected[0], rel=1e-9)
    assert losses["loss_cal"].item() == pytest.approx(expected[1], rel=1e-9)


def test_an_image_without_a_clothes_label_takes_no_part() -> None:
    loss = make_loss().double()
    features, clothes_ids = make_batch(8)
    partly = clothes_ids.clone()
    partly[[1, 4]] = -1
    kept = [0, 2, 3, 5]
    expected = clothes_losses(
        features[kept].tolist(), loss.weight.tolist(), clothes_ids[kept].tolist(), CLOTHES_PIDS, 16.0, 0.1
    )
    features.requires_grad_()
    losses = loss(features, partly)
    assert losses["loss_clothes"].item() == pytest.approx(expected[0], rel=1e-9)
    assert losses["loss_cal"].item() == pytest.approx(expected[1], rel=1e-9)
    losses["loss_cal"].backward()
    assert features.grad[[1, 4]].abs().sum() == 0 and features.grad[kept].abs().sum(1).min() > 0
    nobody = loss(features, torch.full_like(partly, -1))
    assert [value.item() for value in nobody.values()] == [0, 0]


def test_gradients_against_finite_differences_of_the_definition() -> None:
    loss = make_loss().double()
    features, clothes_ids = make_batch(4, count=3)
    features.requires_grad_()
    losses = loss(features, clothes_ids)
    (losses["loss_clothes"] + losses["loss_cal"]).backward()

    def definition(features, weight):
        return clothes_losses(features.tolist(), weight.tolist(), clothes_ids.tolist(), CLOTHES_PIDS, 16.0, 0.1)

    step = 1e-6
    for which, tensor, gradient in ((1, features, features.grad), (0, loss.weight, loss.weight.grad)):
        tensor = tensor.detach()
        for index in range(tensor.numel()):
            difference = torch.zeros_like(tensor).view(-1)
            difference[index] = step
            difference = difference.view_as(tensor)
            if which == 1:
                above = definition(features + difference, loss.weight)
                below = definition(features - difference, loss.weight)
            else:
                above = definition(features, loss.weight + difference)
                below = definition(features, loss.weight - difference)
            expected = (above[which] - below[which]) / (2 * step)
            assert gradient.view(-1)[index].item() == pytest.approx(expected, abs=1e-6)


def test_each_loss_teaches_one_side_only() -> None:
    loss = make_loss()
    features, clothes_ids = make_batch(5, dtype=torch.float32)
    features.requires_grad_()
    loss(features, clothes_ids)["loss_clothes"].backward()
    assert features.grad is None and loss.weight.grad.abs().sum() > 0
    loss.zero_grad(set_to_none=True)
    loss(features, clothes_ids)["loss_cal"].backward()
    assert features.grad.abs().sum() > 0 and loss.weight.grad is None


def test_other_clothes_of_the_person_are_no_negatives() -> None:
    loss = make_loss(clothes_pids=(0, 0, 1), epsilon=0.0)
    with torch.no_grad():
        loss.weight.copy_(torch.eye(3, FEAT_DIM))
    own_other_clothes = loss(torch.tensor([[0.0, 1.0, 0.0, 0.0]]), torch.tensor([0]))["loss_cal"]
    somebody_elses = loss(torch.tensor([[0.0, 0.0, 1.0, 0.0]]), torch.tensor([0]))["loss_cal"]
    assert own_other_clothes.item() == pytest.approx(0.6931, abs=1e-3)
    assert somebody_elses.item() == pytest.approx(16.0, abs=1e-3)


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e4, 3e38])
@pytest.mark.parametrize("clothes_pids", [(0, 0, 0, 0, 0, 0, 0), tuple(CLOTHES_PIDS)])
def test_no_nan(magnitude: float, clothes_pids: tuple[int, ...]) -> None:
    loss = make_loss(clothes_pids=clothes_pids, scale=500.0)
    features, clothes_ids = make_batch(6, dtype=torch.float32)
    features = (features / features.abs().max() * magnitude).requires_grad_()
    losses = loss(features, clothes_ids)
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert torch.isfinite(features.grad).all() and torch.isfinite(loss.weight.grad).all()


def test_float32_under_autocast() -> None:
    loss = make_loss()
    features, clothes_ids = make_batch(7, dtype=torch.float32)
    features = features.bfloat16()
    expected = loss(features.float(), clothes_ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = loss(features, clothes_ids)
    for name in ("loss_clothes", "loss_cal"):
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], expected[name])


def test_no_images_give_zeros_in_the_graph() -> None:
    loss = make_loss()
    features = torch.zeros(0, FEAT_DIM, requires_grad=True)
    losses = loss(features, torch.zeros(0, dtype=torch.int64))
    sum(losses.values()).backward()
    assert [value.item() for value in losses.values()] == [0, 0] and loss.weight.grad.abs().sum() == 0


def test_only_the_classifier_is_in_the_checkpoint_and_wrong_settings_are_named() -> None:
    assert set(make_loss().state_dict()) == {"weight"}
    with pytest.raises(ValueError, match="scale"):
        make_loss(scale=0.0)
    with pytest.raises(ValueError, match="epsilon"):
        make_loss(epsilon=1.5)
    with pytest.raises(ValueError, match="clothes_pids"):
        ClothesAdversarialLoss(FEAT_DIM, torch.zeros(0, dtype=torch.int64))
