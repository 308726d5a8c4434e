"""Training and evaluation modes of a model's modules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Inside, the modes may change; afterwards each module has its own mode again.

    Frozen layers are in evaluation mode while the rest of the model trains, so ``model.train()`` would thaw their
    batch norms.
    """
    was_training = {part: part.training for part in model.modules()}
    try:
        yield
    finally:
        for part, training in was_training.items():
            part.training = training
