"""L_3D against posing both meshes through smplx and subtracting."""

from __future__ import annotations

import pytest
import torch

from fastreid_clip3d.body import load_body_model
from fastreid_clip3d.modeling.losses import BodyShapeLoss
from tests.references.body_shape import arrays_of, body_shape_loss, random_body, to_smplx

FEAT_DIM = 7


def shape_space(body) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.as_tensor(body.v_template), torch.as_tensor(body.shapedirs)


def random_bodies():
    return random_body(1), [random_body(2), random_body(3)]


def make_loss(neutral, targets, hidden_dim: int = 0) -> BodyShapeLoss:
    torch.manual_seed(0)
    return BodyShapeLoss(FEAT_DIM, hidden_dim, shape_space(neutral), [shape_space(target) for target in targets])


def make_batch(seed: int, count: int = 5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, FEAT_DIM, generator=generator, dtype=dtype)
    betas = torch.randn(count, 10, generator=generator, dtype=dtype)
    return features, betas, torch.randint(0, 2, (count,), generator=generator)


@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_agree_with_posing_through_smplx(seed: int) -> None:
    neutral, targets = random_bodies()
    loss = make_loss(neutral, targets, hidden_dim=4).double()
    features, betas, gender = make_batch(seed)
    ours = features.clone().requires_grad_()
    value = loss(ours, betas, gender)
    value.backward()

    posed = features.clone().requires_grad_()
    expected = body_shape_loss(
        to_smplx(neutral, torch.float64),
        [to_smplx(target, torch.float64) for target in targets],
        loss.predict_betas(posed),
        betas,
        gender,
    )
    expected.backward()
    # smplx adds 1e-8 to each joint angle before it takes the norm, so its zero pose is zero to that.
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.grad, posed.grad, rtol=1e-6, atol=1e-8)


def test_embedded_bodies_agree_with_smplx_to_float32_rounding() -> None:
    neutral = load_body_model()
    targets = [load_body_model(gender=gender) for gender in ("female", "male")]
    loss = make_loss(neutral, targets)
    features, betas, gender = make_batch(4, count=3, dtype=torch.float32)
    predicted = loss.predict_betas(features)
    smplx_bodies = [to_smplx(arrays_of(body), torch.float32) for body in (neutral, *targets)]
    expected = body_shape_loss(smplx_bodies[0], smplx_bodies[1:], predicted, betas, gender)
    torch.testing.assert_close(loss(features, betas, gender), expected, rtol=1e-5, atol=0)

    def vertices(body, coefficients):
        return body.v_template.double() + body.shapedirs.double() @ coefficients.double()

    # Nearly the same mesh: the difference of two large numbers must not drown in rounding.
    near = betas + 1e-3
    exact = torch.stack(
        [(vertices(targets[0], near[i]) - vertices(targets[0], betas[i])).square().sum() for i in range(3)]
    )
    same_body = BodyShapeLoss(FEAT_DIM, 0, shape_space(targets[0]), [shape_space(targets[0])])
    distances = same_body.distance(near, betas, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(distances.double(), exact, rtol=2e-2, atol=0)
    assert same_body.distance(betas, betas, torch.zeros(3, dtype=torch.int64)).max() < 1e-9


def test_gender_chooses_the_ground_truth_body() -> None:
    neutral, targets = random_bodies()
    loss = make_loss(neutral, targets)
    predicted, betas = torch.randn(1, 10), torch.randn(1, 10)
    for gender, target in enumerate(targets):
        difference = torch.tensor(
            neutral.v_template + neutral.shapedirs @ predicted[0].double().numpy()
        ) - torch.tensor(target.v_template + target.shapedirs @ betas[0].double().numpy())
        distance = loss.distance(predicted, betas, torch.tensor([gender]))
        assert distance.item() == pytest.approx(difference.square().sum().item(), rel=1e-5)


def test_gradients_by_finite_differences() -> None:
    loss = make_loss(*random_bodies()).double()
    features, betas, gender = make_batch(5, count=2)
    assert torch.autograd.gradcheck(lambda f: loss(f, betas, gender), (features.requires_grad_(),))
    loss(features, betas, gender).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_mean_over_the_images() -> None:
    loss = make_loss(*random_bodies()).double()
    features, betas, gender = make_batch(6, count=4)
    one_by_one = [loss(features[i : i + 1], betas[i : i + 1], gender[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(loss(features, betas, gender), sum(one_by_one) / 4)


def test_bodies_stay_out_of_the_checkpoint() -> None:
    assert set(make_loss(*random_bodies()).state_dict()) == {
        f"regressor.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }


def test_float32_under_autocast() -> None:
    loss = make_loss(*random_bodies())
    features, betas, gender = make_batch(7, dtype=torch.float32)
    expected = loss(features, betas, gender)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(features.bfloat16(), betas.half(), gender.int())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=0.05)


def test_no_images_give_a_zero_in_the_graph() -> None:
    loss = make_loss(*random_bodies())
    value = loss(torch.zeros(0, FEAT_DIM), torch.zeros(0, 10), torch.zeros(0, dtype=torch.int64))
    value.backward()
    assert value.item() == 0 and all(p.grad.abs().sum() == 0 for p in loss.parameters())


def test_wrong_arguments_are_named() -> None:
    neutral, targets = random_bodies()
    with pytest.raises(ValueError, match="all bodies need"):
        make_loss(neutral, [random_body(4, num_vertices=50)])
    with pytest.raises(ValueError, match="at least one"):
        make_loss(neutral, [])
    with pytest.raises(ValueError, match="betas"):
        make_loss(neutral, targets)(torch.zeros(2, FEAT_DIM), torch.zeros(2, 9), torch.zeros(2, dtype=torch.int64))


def test_without_size_the_distance_is_what_no_scaling_and_shift_explains() -> None:
    """Against least squares on the difference of the two meshes, body by body."""
    neutral, targets = random_bodies()
    spaces = [shape_space(body) for body in (neutral, *targets)]
    loss = BodyShapeLoss(FEAT_DIM, 0, spaces[0], spaces[1:], ignore_size=True).double()
    _, betas, gender = make_batch(7)
    predicted = torch.randn(5, 10, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    found = loss.distance(predicted, betas, gender)
    for row in range(5):
        template, directions = spaces[1 + int(gender[row])]
        difference = (spaces[0][0] + spaces[0][1] @ predicted[row]) - (template + directions @ betas[row])
        scaling = spaces[0][0] - spaces[0][0].mean(0)
        shifts = [torch.eye(3, dtype=torch.float64)[axis].expand(len(scaling), 3) for axis in range(3)]
        explained = torch.stack([scaling.reshape(-1), *(shift.reshape(-1) for shift in shifts)], 1)
        weights = torch.linalg.lstsq(explained, difference.reshape(-1, 1)).solution
        rest = difference.reshape(-1, 1) - explained @ weights
        assert found[row].item() == pytest.approx(rest.square().sum().item(), rel=1e-9)


def test_without_size_a_taller_copy_is_the_same_body() -> None:
    neutral, _ = random_bodies()
    template, directions = shape_space(neutral)
    taller = (1.1 * template + 0.05, directions)
    zero, one = torch.zeros(1, 10), torch.zeros(1, dtype=torch.int64)
    apart, alike = (
        BodyShapeLoss(FEAT_DIM, 0, (template, directions), [taller], ignore).distance(zero, zero, one)
        for ignore in (False, True)
    )
    assert apart.item() > 0.1 and alike.item() < 1e-9
