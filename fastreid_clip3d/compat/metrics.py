"""The losses of each step on their way into the log, copied to the host on the stream that computed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from fastreid_clip3d.compat.classification import ON_DEVICE
from fastreid_clip3d.compat.replacement import Reached

_UNREAD = "_unread_steps"
"""Attribute of fast-reid's event storage: the steps whose losses are still on the device, a list of :class:`_Step`."""


class _Step(NamedTuple):
    """One step: `values` [losses + others] on the device, their names, and the seconds of waiting for the batch."""

    iteration: int
    losses: tuple[str, ...]
    others: tuple[str, ...]
    values: Tensor
    data_time: float


def write_metrics(trainer: Any, loss_dict: dict[str, Tensor], data_time: float) -> None:
    """Puts losses (means over processes), their sum, the accuracy and the waiting time into fast-reid's event storage.

    A trainer whose ``losses_wait`` is true leaves them on the device, and the host does not wait. The next call without
    it reads the losses of all steps since, with one copy, and stores each step under its own iteration. All processes
    must read in the same steps. A trainer without that attribute reads in every step.

    Args:
        trainer: fast-reid's ``SimpleTrainer``, of which ``iter`` and ``losses_wait`` are read.
        loss_dict: scalar losses by name.
        data_time: seconds that this process waited for its batch; the longest wait of all processes is logged.

    Raises:
        FloatingPointError: the sum of a step's losses is not finite. The message holds that step's iteration and its
            losses, as in fast-reid. Steps that waited have changed the weights by then, the step that reads has not.
    """
    from fastreid.utils.events import get_event_storage

    storage = get_event_storage()
    others = vars(storage).pop(ON_DEVICE, {})
    scalars = [value.detach().reshape(()).float() for value in (*loss_dict.values(), *others.values())]
    step = _Step(trainer.iter, tuple(loss_dict), tuple(others), torch.stack(scalars), data_time)
    vars(storage).setdefault(_UNREAD, []).append(step)
    if not getattr(trainer, "losses_wait", False):
        _read(storage, vars(storage).pop(_UNREAD))


def _read(storage: Any, steps: list[_Step]) -> None:
    from fastreid.utils import comm

    values = iter(torch.cat([step.values for step in steps]).tolist())
    of_steps = [{name: next(values) for name in (*step.losses, *step.others)} for step in steps]
    mine = [({name: found[name] for name in step.losses}, step.data_time) for step, found in zip(steps, of_steps)]
    gathered = comm.gather(mine)
    if not comm.is_main_process():
        return
    now = storage.iter
    try:
        for number, (step, found) in enumerate(zip(steps, of_steps)):
            storage.iter = step.iteration
            storage.put_scalars(**{name: found[name] for name in step.others})
            _store(storage, step.iteration, [of_rank[number] for of_rank in gathered])
    finally:
        storage.iter = now


def _store(storage: Any, iteration: int, of_ranks: list[tuple[dict[str, float], float]]) -> None:
    """Stores one step, given the losses and the waiting time of each process."""
    storage.put_scalar("data_time", max(waited for _, waited in of_ranks))
    losses = {name: float(np.mean([of_rank[name] for of_rank, _ in of_ranks])) for name in of_ranks[0][0]}
    total = sum(losses.values())
    if not np.isfinite(total):
        raise FloatingPointError(f"Loss became infinite or NaN at iteration={iteration}!\nloss_dict = {losses}")
    storage.put_scalar("total_loss", total)
    if len(losses) > 1:
        storage.put_scalars(**losses)


def uses_a_side_stream(write: Callable[[Any, dict[str, Tensor], float], None]) -> bool:
    """Whether the losses are read on a stream of their own: the function enters one even for losses on a CPU."""
    from fastreid.utils.events import EventStorage

    with mock.patch("torch.cuda.stream", side_effect=Reached), EventStorage():
        try:
            write(mock.Mock(iter=0, losses_wait=False), {"loss": torch.zeros(())}, 0.0)
        except Reached:
            return True
    return False
