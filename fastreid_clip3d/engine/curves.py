"""When the log, metrics.json and the TensorBoard curves are written, so that no evaluation is missing from them."""

from __future__ import annotations

from typing import Sequence

from fastreid.engine import hooks
from fastreid.utils.events import EventWriter


class CurveWriter(hooks.PeriodicWriter):
    """Writes every `period` iterations, at the end of every epoch and, with the last evaluation, at the end.

    fast-reid's writers pass over an iteration they have written before. Its hook writes in an epoch's last step and then
    evaluates, so the scores of that evaluation never arrive; here the last step waits for its epoch to end. The scores of
    the evaluation after training stand under the iteration that would come next.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int, iterations_per_epoch: int) -> None:
        super().__init__(list(writers), period)
        self.iterations_per_epoch = iterations_per_epoch

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 and done % self.iterations_per_epoch != 0:
            self.write()

    def after_epoch(self) -> None:
        self.write()

    def after_train(self) -> None:
        self.write()
        super().after_train()

    def write(self) -> None:
        """Writes what is new."""
        for writer in self._writers:
            writer.write()
