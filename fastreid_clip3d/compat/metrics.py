"""The losses of a step on their way into the log: one copy to the host, on the stream that computed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from fastreid_clip3d.compat.classification import ON_DEVICE
from fastreid_clip3d.compat.replacement import Reached


def write_metrics(trainer: Any, loss_dict: dict[str, Tensor], data_time: float) -> None:
    """Puts losses (means over processes), their sum, the accuracy and the waiting time into fast-reid's event storage.

    Args:
        trainer: fast-reid's ``SimpleTrainer``, of which ``iter`` is read.
        loss_dict: scalar losses by name.
        data_time: seconds that this process waited for its batch; the longest wait of all processes is logged.

    Raises:
        FloatingPointError: the sum of the losses is not finite. The message holds every loss, as in fast-reid.
    """
    from fastreid.utils import comm
    from fastreid.utils.events import get_event_storage

    storage = get_event_storage()
    waiting = vars(storage).pop(ON_DEVICE, {})
    scalars = [value.detach().reshape(()).float() for value in (*loss_dict.values(), *waiting.values())]
    values = torch.stack(scalars).tolist()
    gathered = comm.gather((dict(zip(loss_dict, values)), data_time))
    if not comm.is_main_process():
        return
    storage.put_scalars(**dict(zip(waiting, values[len(loss_dict) :])))
    storage.put_scalar("data_time", max(waited for _, waited in gathered))
    losses = {name: float(np.mean([of_rank[name] for of_rank, _ in gathered])) for name in gathered[0][0]}
    total = sum(losses.values())
    if not np.isfinite(total):
        raise FloatingPointError(f"Loss became infinite or NaN at iteration={trainer.iter}!\nloss_dict = {losses}")
    storage.put_scalar("total_loss", total)
    if len(losses) > 1:
        storage.put_scalars(**losses)


def uses_a_side_stream(write: Callable[[Any, dict[str, Tensor], float], None]) -> bool:
    """Whether the losses are read on a stream of their own: the function enters one even for losses on a CPU."""
    from fastreid.utils.events import EventStorage

    with mock.patch("torch.cuda.stream", side_effect=Reached), EventStorage():
        try:
            write(mock.Mock(iter=0), {"loss": torch.zeros(())}, 0.0)
        except Reached:
            return True
    return False
