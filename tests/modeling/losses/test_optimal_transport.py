"""L_OT against a loop over images and pairs, and its promises about gradients, precision and dead patches."""

from __future__ import annotations

import pytest
import torch

from fastreid_clip3d.modeling.losses import MLP, OTLoss, sinkhorn
from tests.references.optimal_transport import centred, cost_matrix, ot_loss, ot_loss_with_gradients

TEXT_DIM, FEAT_DIM = 6, 5


def make_batch(seed: int, batch: int = 3, patches: int = 8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, patches, FEAT_DIM, generator=generator, dtype=dtype)
    table = torch.randn(32, TEXT_DIM, generator=generator, dtype=dtype)
    choices = torch.randint(0, 2, (batch, 16), generator=generator)
    return features, table, choices


def make_loss(seed: int = 0, **settings) -> OTLoss:
    torch.manual_seed(seed)
    return OTLoss(TEXT_DIM, FEAT_DIM, **settings)


@pytest.mark.parametrize("seed, reg, num_iters", [(0, 1.0, 1), (1, 0.1, 100), (2, 0.02, 7), (3, 3.0, 2)])
def test_value_against_the_loop(seed: int, reg: float, num_iters: int) -> None:
    loss = make_loss(seed, hidden_dim=4, reg=reg, num_iters=num_iters).double()
    features, table, choices = make_batch(seed)
    value = loss(features, loss.project(table), choices)
    expected = ot_loss(features, table, choices, lambda rows: loss.projection(rows).detach(), reg, num_iters)
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_psi_is_an_mlp_with_one_hidden_layer_of_the_asked_width() -> None:
    assert [tuple(p.shape) for p in make_loss(hidden_dim=7).projection.parameters()] == [(7, 6), (7,), (5, 7), (5,)]
    assert [tuple(p.shape) for p in make_loss().projection.parameters()] == [(5, 6), (5,), (5, 5), (5,)]


def test_envelope_gradient_takes_the_plan_as_a_constant() -> None:
    loss = make_loss(num_iters=3).double()
    features, table, choices = make_batch(4)
    plan = loss.plan(loss.cost(features, loss.project(table), choices)).detach()

    def with_plan_held(features):
        return (plan * loss.cost(features, loss.project(table), choices)).sum() / len(features)

    ours, held = features.clone().requires_grad_(), features.clone().requires_grad_()
    loss(ours, loss.project(table), choices).backward()
    gradients = [p.grad.clone() for p in loss.parameters()]
    loss.zero_grad()
    with_plan_held(held).backward()
    torch.testing.assert_close(ours.grad, held.grad)
    for ours_of_weight, parameter in zip(gradients, loss.parameters()):
        torch.testing.assert_close(ours_of_weight, parameter.grad)
        assert ours_of_weight.abs().sum() > 0


def test_differentiable_gradient_by_finite_differences_and_it_differs_from_the_envelope() -> None:
    features, table, choices = make_batch(5, batch=2, patches=4)
    gradients = {}
    for differentiable in (True, False):
        loss = make_loss(reg=0.3, num_iters=3, differentiable=differentiable).double()
        projected = loss.project(table).detach()
        ours = features.clone().requires_grad_()
        loss(ours, projected, choices).backward()
        gradients[differentiable] = ours.grad
        if differentiable:
            inputs = (features.clone().requires_grad_(), projected.clone().requires_grad_())
            assert torch.autograd.gradcheck(lambda f, p, loss=loss: loss(f, p, choices), inputs)
    assert (gradients[True] - gradients[False]).abs().max() > 1e-4


def test_cost_by_finite_differences_through_psi() -> None:
    loss = make_loss().double()
    features, table, choices = make_batch(6, batch=1, patches=3)
    assert torch.autograd.gradcheck(
        lambda f, t: loss.cost(f, loss.project(t), choices), (features.requires_grad_(), table.requires_grad_())
    )


def test_the_table_projected_once_serves_both_halves() -> None:
    loss = make_loss().double()
    features, table, choices = make_batch(7, batch=6)
    calls = []
    loss.projection.register_forward_hook(lambda *_: calls.append(1))
    projected = loss.project(table)
    halves = loss(features[:2], projected, choices[:2]) * 2 + loss(features[2:], projected, choices[2:]) * 4
    torch.testing.assert_close(halves / 6, loss(features, loss.project(table), choices))
    assert len(calls) == 2  # one for the two halves, one for the whole


def test_a_feature_map_view_gives_the_same_loss() -> None:
    loss = make_loss()
    _, table, choices = make_batch(8, dtype=torch.float32)
    feature_map = torch.randn(3, FEAT_DIM, 4, 2)
    view = feature_map.flatten(2).transpose(1, 2)
    projected = loss.project(table)
    torch.testing.assert_close(loss(view, projected, choices), loss(view.contiguous(), projected, choices))
    row_major = loss.cost(view, projected, choices)[:, 3]  # patch 3 is row 1, column 1
    torch.testing.assert_close(row_major, loss.cost(feature_map[:, :, 1, 1][:, None], projected, choices)[:, 0])


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e-3, 1e4, 1e25, 3e38])
@pytest.mark.parametrize("reg, differentiable", [(1.0, False), (0.05, True), (1e-4, True)])
def test_no_nan_for_any_finite_features(magnitude: float, reg: float, differentiable: bool) -> None:
    loss = make_loss(reg=reg, num_iters=10, differentiable=differentiable)
    features, table, choices = make_batch(9, dtype=torch.float32)
    features = features / features.abs().max() * magnitude
    features[0, 0] = 0.0
    features.requires_grad_()
    value = loss(features, loss.project(table), choices)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(features.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters())
    assert features.grad[0, 0].abs().max() == 0


def test_cosines_do_not_depend_on_the_magnitude() -> None:
    loss = make_loss()
    features, table, choices = make_batch(10, dtype=torch.float32)
    expected = torch.tensor(cost_matrix(features[0], loss.project(table)[2 * torch.arange(16) + choices[0]]))
    for magnitude in (1e-4, 1.0, 1e30):
        cost = loss.cost(features * magnitude, loss.project(table), choices)[0]
        torch.testing.assert_close(cost, expected, atol=1e-5, rtol=1e-5)


def test_a_dead_phrase_projection_gives_no_nan() -> None:
    loss = make_loss()
    with torch.no_grad():
        for parameter in loss.projection.parameters():
            parameter.zero_()
    features, table, choices = make_batch(11, dtype=torch.float32)
    value = loss(features.requires_grad_(), loss.project(table), choices)
    value.backward()
    assert value.item() == pytest.approx(1.0) and torch.isfinite(features.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_under_autocast(dtype: torch.dtype) -> None:
    loss = make_loss(reg=0.1, num_iters=20)
    features, table, choices = make_batch(12, dtype=torch.float32)
    features = features.to(dtype)
    projected = loss.project(table)
    expected = loss.double()(features.double(), projected.double(), choices)
    loss.float()
    with torch.autocast("cpu", dtype=dtype):
        value = loss(features.requires_grad_(), projected, choices)
        projected_in_half = loss.project(table.half())
    value.backward()
    assert value.dtype == projected_in_half.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert features.grad.dtype == dtype and torch.isfinite(features.grad).all()


def test_no_images_give_a_zero_in_the_graph() -> None:
    loss = make_loss()
    _, table, _ = make_batch(13, dtype=torch.float32)
    features = torch.zeros(0, 8, FEAT_DIM, requires_grad=True)
    value = loss(features, loss.project(table), torch.zeros(0, 16, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in loss.parameters())


def test_plan_is_the_public_solver_with_the_settings_of_the_loss() -> None:
    loss = make_loss(reg=0.02, num_iters=100, tolerance=10.0)  # met at the first look, after ten iterations
    cost = torch.rand(2, 8, 16)
    torch.testing.assert_close(loss.plan(cost), sinkhorn(cost, 0.02, 10))
    assert not torch.allclose(loss.plan(cost), sinkhorn(cost, 0.02, 100), rtol=1e-3)
    loss.tolerance = 0.0
    torch.testing.assert_close(loss.plan(cost), sinkhorn(cost, 0.02, 100))


def test_wrong_settings_and_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="reg"):
        make_loss(reg=0.0)
    with pytest.raises(ValueError, match="num_iters"):
        make_loss(num_iters=0)
    with pytest.raises(ValueError, match="hidden_dim"):
        MLP(3, 0, 4)
    loss = make_loss()
    features, table, choices = make_batch(14, dtype=torch.float32)
    projected = loss.project(table)
    with pytest.raises(ValueError, match="local features"):
        loss(features.flatten(1), projected, choices)
    with pytest.raises(ValueError, match="phrase_choices"):
        loss(features, projected, choices[:, :15])


def test_opposition_against_a_loop_over_images_and_pairs() -> None:
    loss = make_loss(contrast=0.7, contrast_temperature=0.3).double()
    features, table, choices = make_batch(8)
    projected = loss.project(table)
    terms = []
    for image in range(3):
        for pair in range(16):
            own, opposite = projected[2 * pair + choices[image, pair]], projected[2 * pair + 1 - choices[image, pair]]
            cosines = [
                torch.stack(
                    [torch.nn.functional.cosine_similarity(patch, phrase, dim=0) for patch in features[image]]
                ).mean()
                for phrase in (own, opposite)
            ]
            terms.append(torch.log(1 + torch.exp((cosines[1] - cosines[0]) / 0.3)))
    without = make_loss().double()
    expected = without(features, without.project(table), choices) + 0.7 * torch.stack(terms).mean()
    torch.testing.assert_close(loss(features, projected, choices), expected)


def test_opposition_pushes_phrases_apart_that_transport_lets_coincide() -> None:
    features, table, choices = make_batch(9, batch=12)
    spread = {}
    for contrast in (0.0, 1.0):
        loss = make_loss(contrast=contrast).double()
        patches = features.clone().requires_grad_()
        optimizer = torch.optim.Adam([patches, *loss.parameters()], lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            loss(patches, loss.project(table), choices).backward()
            optimizer.step()
        projected = loss.project(table)
        spread[contrast] = (projected[::2] * projected[1::2]).sum(1).mean().item()
    assert spread[0.0] > 0.98  # a phrase and its opposite became one direction
    assert spread[1.0] < 0.9


@pytest.mark.parametrize("settings", [{"contrast": -1.0}, {"contrast": 1.0, "contrast_temperature": 0.0}])
def test_wrong_contrast_is_told_when_the_loss_is_built(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="contrast"):
        make_loss(**settings)


@pytest.mark.parametrize("center", ["none", "image", "batch"])
def test_centred_patches_against_loops(center: str) -> None:
    loss = make_loss(center=center, reg=0.5, num_iters=4).double()
    features, table, choices = make_batch(15)
    features = features + 3  # what all patches share
    projected = loss.project(table).detach()
    ours, slow = features.clone().requires_grad_(), features.clone().requires_grad_()
    value = loss(ours, projected, choices)
    expected = ot_loss_with_gradients(centred(slow, center), projected, choices, 0.5, 4)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.grad, slow.grad)


@pytest.mark.parametrize("center", ["image", "batch"])
def test_what_all_patches_share_does_not_matter_once_centred(center: str) -> None:
    features, table, choices = make_batch(16)
    shift = 5 * torch.randn(1, 1, FEAT_DIM, dtype=torch.float64)
    loss, without = make_loss(center=center, contrast=1.0).double(), make_loss(contrast=1.0).double()
    torch.testing.assert_close(
        loss(features + shift, loss.project(table), choices), loss(features, loss.project(table), choices)
    )
    assert not torch.allclose(
        without(features + shift, without.project(table), choices), without(features, without.project(table), choices)
    )


@pytest.mark.parametrize("center", ["image", "batch"])
@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1.0, 3e38])
def test_centring_gives_no_nan_for_any_finite_features(center: str, magnitude: float) -> None:
    loss = make_loss(center=center, contrast=1.0)
    features, table, choices = make_batch(17, dtype=torch.float32)
    features = (features.sign() * magnitude).requires_grad_()
    value = loss(features, loss.project(table), choices)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(features.grad).all()
    none = torch.zeros(0, 8, FEAT_DIM, requires_grad=True)
    loss(none, loss.project(table), choices[:0]).backward()
    assert none.grad is not None


def test_an_unknown_center_is_named() -> None:
    with pytest.raises(ValueError, match="center must be one of none, image, batch, got 'mean'"):
        make_loss(center="mean")
