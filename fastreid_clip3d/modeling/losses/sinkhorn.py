"""Sinkhorn's solver of entropic optimal transport, for a batch of cost matrices.

B: problems in the batch. N: source points (patches). M: target points (phrases).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_DOMAIN_BELOW = 0.05
"""Regularisers under this are solved with logarithms: exp(-C / reg) of a cosine cost would leave float32's range."""

_WIDEST_SAFE_EXPONENT = 40.0
"""Largest range of C / reg for which neither the kernel nor u and v (at most its square) leave float32's range."""

_CPU_CHECK_EVERY = 10


def sinkhorn(
    cost: Tensor,
    reg: float,
    num_iters: int,
    *,
    row_marginals: Tensor | None = None,
    column_marginals: Tensor | None = None,
    tolerance: float = 0.0,
    check_every: int | None = None,
    log_domain: bool | None = None,
) -> Tensor:
    """Transport plans of B entropic optimal transport problems (paper, Eq. 6 and 7).

    Each plan T minimises ``<T, C> + reg * sum T (log T - 1)`` over non-negative T with ``T 1 = u`` and ``T^T 1 = v``.
    With ``K = exp(-C / reg)`` and ``v_0 = 1`` an iteration is ``u_t = u / (K v_{t-1})``, ``v_t = v / (K^T u_t)``, and
    the plan is ``diag(u_t) K diag(v_t)``: its columns always sum to v, its rows to u at convergence.

    The arithmetic is float32, also under autocast and for half-precision costs; a float64 cost is solved in float64.
    The plan is differentiable with respect to the cost and the marginals, by unrolling the iterations. For the
    envelope gradient give it a detached cost: at convergence the plan is the gradient of the minimum by the cost.

    Args:
        cost: [B, N, M], finite; any sign.
        reg: lambda > 0, in the unit of the cost.
        num_iters: t >= 1, the number of iterations, an upper bound if ``tolerance`` is positive.
        row_marginals: u, [N] or [B, N], positive; 1 / N by default.
        column_marginals: v, [M] or [B, M], positive, same total as ``row_marginals``; 1 / M by default.
        tolerance: stop when no row of any plan misses its marginal by more than this, summed over the rows of one
            plan (0: never stop early).
        check_every: iterations between two looks at ``tolerance``. None: 10 on a CPU; never on an accelerator, where a
            look waits for the device to catch up.
        log_domain: iterate on log u and log v, slower and safe for every finite cost. None: where ``reg`` is under
            0.05, or where the range of C / reg is too wide for float32 (finding that out waits for the device; a caller
            who knows the range of his costs says True or False).

    Returns:
        The plans, [B, N, M], float32 (float64 for a float64 cost).

    Raises:
        ValueError: if a shape, ``reg``, ``num_iters`` or ``tolerance`` is out of range.

    Two patches, two phrases, each patch near one phrase. A small lambda sends half of the mass along each pair, a large
    one spreads it:

    >>> cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    >>> sinkhorn(cost, reg=0.1, num_iters=100).round(decimals=3)
    tensor([[[0.5000, 0.0000],
             [0.0000, 0.5000]]])
    >>> sinkhorn(cost, reg=1000.0, num_iters=1).round(decimals=3)
    tensor([[[0.2500, 0.2500],
             [0.2500, 0.2500]]])
    """
    _check_arguments(cost, reg, num_iters, tolerance, check_every)
    num_iters = int(num_iters)
    with torch.autocast(device_type=cost.device.type, enabled=False):
        if cost.dtype != torch.float64:
            cost = cost.float()
        batch, rows, columns = cost.shape
        row_marginals = _marginals("row_marginals", row_marginals, batch, rows, cost)
        column_marginals = _marginals("column_marginals", column_marginals, batch, columns, cost)
        if check_every is None and cost.device.type == "cpu":
            check_every = _CPU_CHECK_EVERY
        if tolerance <= 0 or check_every is None:
            check_every = num_iters + 1
        if log_domain is None:
            log_domain = reg < LOG_DOMAIN_BELOW or _range_is_wide(cost, reg)
        solve = _solve_with_logarithms if log_domain else _solve_with_scalings
        # Patches last: the reductions of an iteration then run along contiguous memory.
        transposed = cost.transpose(1, 2).contiguous()
        plan = solve(transposed, reg, num_iters, row_marginals, column_marginals, tolerance, check_every)
        return plan.transpose(1, 2)


def _solve_with_scalings(
    cost: Tensor,
    reg: float,
    num_iters: int,
    row_marginals: Tensor,
    column_marginals: Tensor,
    tolerance: float,
    check_every: int,
) -> Tensor:
    """The iteration on u [B, N] and v [B, M]; cost and plan are [B, M, N]."""
    kernel = torch.exp(cost / -reg)
    kernel_v = kernel.sum(1)
    needs_graph = torch.is_grad_enabled() and any(t.requires_grad for t in (cost, row_marginals, column_marginals))
    product = None if needs_graph else torch.empty_like(kernel)
    # Products and sums, not matmul: faster for matrices this thin, and never in TF32.
    for iteration in range(1, num_iters + 1):
        u = row_marginals / kernel_v
        v = column_marginals / torch.mul(kernel, u[:, None, :], out=product).sum(2)
        if iteration == num_iters:
            break
        kernel_v = torch.mul(kernel, v[:, :, None], out=product).sum(1)
        if iteration % check_every == 0 and _converged(u * kernel_v, row_marginals, tolerance):
            break
    return v[:, :, None] * kernel * u[:, None, :]


def _solve_with_logarithms(
    cost: Tensor,
    reg: float,
    num_iters: int,
    row_marginals: Tensor,
    column_marginals: Tensor,
    tolerance: float,
    check_every: int,
) -> Tensor:
    """The iteration on log u and log v; cost and plan are [B, M, N]."""
    # The division may overflow for a huge cost; an infinite logarithm would end in inf - inf.
    largest = torch.finfo(cost.dtype).max / 16
    log_kernel = (cost / -reg).clamp(-largest, largest)
    log_rows, log_columns = row_marginals.log(), column_marginals.log()
    log_kernel_v = torch.logsumexp(log_kernel, 1)
    for iteration in range(1, num_iters + 1):
        log_u = log_rows - log_kernel_v
        log_kernel_u = log_kernel + log_u[:, None, :]
        if iteration == num_iters:
            break
        log_v = log_columns - torch.logsumexp(log_kernel_u, 2)
        log_kernel_v = torch.logsumexp(log_kernel + log_v[:, :, None], 1)
        if iteration % check_every == 0 and _converged((log_u + log_kernel_v).exp(), row_marginals, tolerance):
            break
    # diag(u) K diag(v) with v = column marginals / (K^T u), written so that no rounding can overflow the exponential.
    return column_marginals[:, :, None] * torch.softmax(log_kernel_u, 2)


@torch.no_grad()
def _converged(row_sums: Tensor, row_marginals: Tensor, tolerance: float) -> bool:
    return bool(((row_sums - row_marginals).abs().sum(1) <= tolerance).all())


@torch.no_grad()
def _range_is_wide(cost: Tensor, reg: float) -> bool:
    if cost.numel() == 0:
        return False
    lowest, highest = torch.aminmax(cost)
    widest = torch.maximum(highest - lowest, torch.maximum(highest.abs(), lowest.abs()))
    return float(widest) > _WIDEST_SAFE_EXPONENT * reg


def _marginals(name: str, marginals: Tensor | None, batch: int, size: int, cost: Tensor) -> Tensor:
    """[B or 1, size] in the cost's type and device."""
    if marginals is None:
        return cost.new_full((1, size), 1.0 / size)
    if tuple(marginals.shape) not in ((size,), (batch, size)):
        raise ValueError(
            f"sinkhorn: {name} has shape {tuple(marginals.shape)}, expected ({size},) or ({batch}, {size}) "
            f"for a cost of shape {tuple(cost.shape)}"
        )
    return marginals.to(device=cost.device, dtype=cost.dtype).reshape(-1, size)


def _check_arguments(cost: Tensor, reg: float, num_iters: int, tolerance: float, check_every: int | None) -> None:
    if cost.dim() != 3 or not cost.is_floating_point():
        raise ValueError(
            f"sinkhorn: cost must be a floating point tensor [B, N, M], got {cost.dtype} of shape {tuple(cost.shape)}"
        )
    if cost.shape[1] < 1 or cost.shape[2] < 1:
        raise ValueError(f"sinkhorn: cost of shape {tuple(cost.shape)} has no rows or no columns to transport between")
    if not (math.isfinite(reg) and reg > 0):
        raise ValueError(f"sinkhorn: reg (lambda) must be positive and finite, got {reg}")
    if isinstance(num_iters, bool) or not float(num_iters).is_integer() or num_iters < 1:
        raise ValueError(f"sinkhorn: num_iters must be a whole number of at least 1, got {num_iters}")
    if not tolerance >= 0:
        raise ValueError(f"sinkhorn: tolerance must be 0 or positive, got {tolerance}")
    if check_every is not None and check_every < 1:
        raise ValueError(f"sinkhorn: check_every must be at least 1, got {check_every}")
