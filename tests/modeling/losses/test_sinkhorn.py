"""The solver against loops, against POT, and on the inputs that break naive solvers."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch

from fastreid_clip3d.modeling.losses import sinkhorn
from tests.references.sinkhorn import sinkhorn_plan

CONVERGED = 5000


def random_cost(seed: int, batch: int = 2, rows: int = 7, columns: int = 4, dtype=torch.float64) -> torch.Tensor:
    return 2 * torch.rand(batch, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("log_domain", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_plan_after_exactly_t_iterations(seed: int, log_domain: bool) -> None:
    draw = np.random.default_rng(seed)
    batch, rows, columns, num_iters = (int(draw.integers(1, top)) for top in (4, 12, 8, 6))
    reg = float(draw.uniform(0.1, 2))
    cost = random_cost(seed, batch, rows, columns) - 0.5
    a = torch.tensor(draw.dirichlet(np.full(rows, 5), batch)) + 1e-6
    b = torch.tensor(draw.dirichlet(np.full(columns, 5))) + 1e-6
    plan = sinkhorn(cost, reg, num_iters, row_marginals=a, column_marginals=b, log_domain=log_domain)
    for one, plan_of_one, rows_of_one in zip(cost.tolist(), plan.tolist(), a.tolist()):
        np.testing.assert_allclose(plan_of_one, sinkhorn_plan(one, reg, num_iters, rows_of_one, b.tolist()), rtol=1e-9)
    uniform = sinkhorn(cost, reg, num_iters, log_domain=log_domain)
    np.testing.assert_allclose(uniform[0].tolist(), sinkhorn_plan(cost[0].tolist(), reg, num_iters), rtol=1e-9)


@pytest.mark.parametrize("reg", [1.0, 0.1, 0.02])
def test_converged_plan_and_gradient_agree_with_pot(reg: float) -> None:
    cost = random_cost(3, batch=1, rows=9, columns=5)
    a, b = torch.full((9,), 1 / 9, dtype=torch.float64), torch.full((5,), 1 / 5, dtype=torch.float64)

    ours = cost.clone().requires_grad_()
    plan = sinkhorn(ours, reg, CONVERGED, tolerance=1e-14)
    (plan * ours).sum().backward()

    theirs = cost[0].clone().requires_grad_()
    their_plan = ot.sinkhorn(a, b, theirs, reg, method="sinkhorn_log", numItermax=CONVERGED, stopThr=1e-14)
    (their_plan * theirs).sum().backward()

    torch.testing.assert_close(plan[0], their_plan, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.grad[0], theirs.grad, atol=1e-6, rtol=0)


def test_envelope_gradient_agrees_with_pot() -> None:
    """The gradient of the regularised minimum, which POT gives by its own envelope rule, is our plan."""
    cost = random_cost(4, batch=1, rows=9, columns=5)
    theirs = cost[0].clone().requires_grad_()
    ot.solve(theirs, reg=0.2, reg_type="entropy", max_iter=CONVERGED, tol=1e-13).value.backward()
    plan = sinkhorn(cost, 0.2, CONVERGED, tolerance=1e-14)
    torch.testing.assert_close(plan[0], theirs.grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize("log_domain", [False, True])
def test_gradients_by_finite_differences(log_domain: bool) -> None:
    cost = random_cost(5, rows=4, columns=3).requires_grad_()
    a = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64, requires_grad=True)

    def plan(cost, a):
        return sinkhorn(cost, 0.3, 3, row_marginals=a, log_domain=log_domain)

    assert torch.autograd.gradcheck(plan, (cost, a))


def test_marginals_hold_at_convergence() -> None:
    plan = sinkhorn(random_cost(6, rows=128, columns=16, dtype=torch.float32), 0.1, 200)
    torch.testing.assert_close(plan.sum(1), torch.full((2, 16), 1 / 16))
    torch.testing.assert_close(plan.sum(2), torch.full((2, 128), 1 / 128), atol=1e-6, rtol=0)


def test_early_stop_saves_iterations_and_keeps_the_answer(monkeypatch) -> None:
    cost = random_cost(7, rows=20, columns=6)
    counted = []
    logsumexp = torch.logsumexp
    monkeypatch.setattr(torch, "logsumexp", lambda *args: counted.append(1) or logsumexp(*args))
    full = sinkhorn(cost, 0.5, 300, log_domain=True)
    without_stop = len(counted)
    counted.clear()
    stopped = sinkhorn(cost, 0.5, 300, tolerance=1e-9, log_domain=True)
    assert len(counted) < without_stop / 4
    torch.testing.assert_close(stopped, full, atol=1e-8, rtol=0)
    # A tolerance that the first look already meets ends there: ten iterations, not more.
    torch.testing.assert_close(sinkhorn(cost, 0.5, 300, tolerance=10.0), sinkhorn(cost, 0.5, 10))


@pytest.mark.parametrize("log_domain", [False, True])
def test_the_early_stop_comes_with_the_first_plan_within_the_tolerance(log_domain: bool) -> None:
    cost = random_cost(5)
    plans = [sinkhorn(cost, 0.3, num_iters, log_domain=log_domain) for num_iters in range(1, 7)]
    errors = [float((plan.sum(2) - 1 / 7).abs().sum(1).max()) for plan in plans]
    assert errors == sorted(errors, reverse=True)
    for number, error in enumerate(errors):
        stopped = sinkhorn(cost, 0.3, 100, tolerance=1.01 * error, check_every=1, log_domain=log_domain)
        torch.testing.assert_close(stopped, plans[number])


def test_a_cost_that_leaves_the_kernels_range_is_solved_with_logarithms() -> None:
    cost = torch.tensor([[[30.0, 31.0], [30.5, 30.0]]])
    torch.testing.assert_close(
        sinkhorn(cost, 0.3, 5).double(), sinkhorn(cost.double(), 0.3, 5, log_domain=True), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_float32_arithmetic_for_every_cost_and_under_autocast(dtype: torch.dtype) -> None:
    cost = random_cost(8, rows=30, columns=16).to(dtype)
    expected = sinkhorn(cost.double(), 0.1, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plan = sinkhorn(cost, 0.1, 50)
    assert plan.dtype == torch.float32 and expected.dtype == torch.float64
    torch.testing.assert_close(plan.double(), expected, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("reg", [1e-4, 0.01, 0.05, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 2.0, 1e3, 1e30, 1e38])
def test_no_nan_for_any_finite_cost(reg: float, scale: float) -> None:
    for sign in (1, -1):
        cost = (sign * scale * torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(1))).requires_grad_()
        plan = sinkhorn(cost, reg, 20)
        plan.sum().backward()
        assert torch.isfinite(plan).all() and torch.isfinite(cost.grad).all()
        torch.testing.assert_close(plan.sum((1, 2)), torch.ones(2), atol=1e-3, rtol=0)


def test_small_regulariser_gives_the_cheapest_assignment() -> None:
    rows = torch.tensor([2, 0, 1])
    cost = torch.ones(1, 3, 3)
    cost[0, torch.arange(3), rows] = 0.0
    plan = sinkhorn(cost, 1e-4, 50)[0]
    torch.testing.assert_close(plan[torch.arange(3), rows], torch.full((3,), 1 / 3))


def test_degenerate_sizes() -> None:
    assert sinkhorn(torch.zeros(0, 5, 3), 1.0, 2).shape == (0, 5, 3)
    assert sinkhorn(torch.zeros(0, 5, 3), 0.01, 2, tolerance=0.1).shape == (0, 5, 3)
    torch.testing.assert_close(sinkhorn(torch.tensor([[[0.7]]]), 1.0, 1), torch.ones(1, 1, 1))
    torch.testing.assert_close(sinkhorn(torch.rand(2, 4, 1), 1.0, 30), torch.full((2, 4, 1), 0.25))


def test_the_cost_is_left_as_it_was() -> None:
    cost = random_cost(9)
    before = cost.clone()
    sinkhorn(cost, 0.01, 5)
    sinkhorn(cost, 1.0, 5)
    assert torch.equal(cost, before)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"cost": torch.zeros(3, 4)}, "cost must be"),
        ({"cost": torch.zeros(1, 3, 4, dtype=torch.int64)}, "cost must be"),
        ({"cost": torch.zeros(1, 0, 4)}, "no rows"),
        ({"reg": 0.0}, "reg"),
        ({"reg": float("nan")}, "reg"),
        ({"num_iters": 0}, "num_iters"),
        ({"num_iters": 1.5}, "num_iters"),
        ({"num_iters": float("inf")}, "num_iters"),
        ({"num_iters": float("nan")}, "num_iters"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"check_every": 0}, "check_every"),
        ({"row_marginals": torch.ones(4)}, "row_marginals"),
        ({"column_marginals": torch.ones(3, 4)}, "column_marginals"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    arguments = {"cost": torch.zeros(1, 3, 4), "reg": 1.0, "num_iters": 1, **change}
    with pytest.raises(ValueError, match=message):
        sinkhorn(**arguments)


def test_a_whole_number_of_iterations_may_be_a_float() -> None:
    cost = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sinkhorn(cost, 1.0, 3.0), sinkhorn(cost, 1.0, 3))
