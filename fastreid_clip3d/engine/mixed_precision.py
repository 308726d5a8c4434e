"""Training steps in half precision, on CUDA and on a CPU.

fast-reid's trainer has float16 on CUDA only. Here ``SOLVER.AMP.DTYPE`` chooses: float16, whose small range needs a loss
scale, or bfloat16, which has float32's range and needs none.
"""

from __future__ import annotations

import time

import torch
from fastreid.engine.train_loop import SimpleTrainer, TrainerBase
from fastreid.utils.params import ContiguousParams
from torch.amp.grad_scaler import GradScaler

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""The values of ``SOLVER.AMP.DTYPE``."""


class MixedPrecisionTrainer(SimpleTrainer):
    """fast-reid's training step with an autocast around model and losses.

    Args:
        trainer: the one that fast-reid built; its model, batches and optimiser go over to this one.
        device: where the model is. dtype: of the autocast.

    Attributes:
        grad_scaler: scales the loss for float16; None for bfloat16.
    """

    def __init__(self, trainer: SimpleTrainer, device: torch.device, dtype: torch.dtype) -> None:
        TrainerBase.__init__(self)  # SimpleTrainer's own would start a second set of workers
        self.model, self.data_loader = trainer.model, trainer.data_loader
        self._data_loader_iter = trainer._data_loader_iter
        self.optimizer, self.param_wrapper = trainer.optimizer, trainer.param_wrapper
        self.device, self.dtype = device, dtype
        self.grad_scaler = GradScaler(device.type) if dtype is torch.float16 else None

    def run_step(self) -> None:
        """One step; with float16 a step whose gradients overflow changes no weight and lowers the scale."""
        started = time.perf_counter()
        batch = next(self._data_loader_iter)
        waited = time.perf_counter() - started
        with torch.autocast(self.device.type, self.dtype):
            losses = self.model(batch)
            total = sum(losses.values())
        self.optimizer.zero_grad()
        (total if self.grad_scaler is None else self.grad_scaler.scale(total)).backward()
        self._write_metrics(losses, waited)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        if isinstance(self.param_wrapper, ContiguousParams):
            self.param_wrapper.assert_buffer_is_valid()
