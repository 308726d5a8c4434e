"""The log, metrics.json and the TensorBoard curves: they miss no evaluation and hold no step twice."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastreid.engine import hooks
from fastreid.utils.events import EventWriter, JSONWriter, TensorboardXWriter

from fastreid_clip3d.common.files import write_atomically


class CurveWriter(hooks.PeriodicWriter):
    """Writes every `period` iterations, at the end of every epoch and, with the last evaluation, at the end.

    fast-reid's writers pass over an iteration they have written before. Its hook writes in an epoch's last step and
    then evaluates, so the scores of that evaluation never arrive; here the last step waits for its epoch to end. The
    scores of the evaluation after training stand under the iteration that would come next.
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


class _OpenedAtFirstWrite(EventWriter, ABC):
    """A writer that is made when it has something to write: only then is it known at which iteration the run begins.

    Args:
        path: what it writes. first_iteration: gives that iteration; None for a training that begins anew.
    """

    def __init__(self, path: str, first_iteration: Callable[[], int | None]) -> None:
        self._path, self._first_iteration = path, first_iteration
        self._writer: Any = None

    @abstractmethod
    def _open(self, first_iteration: int | None) -> EventWriter:
        """The writer of this file, with what a stopped run wrote from `first_iteration` on taken out."""

    def write(self) -> None:
        if self._writer is None:
            self._writer = self._open(self._first_iteration())
        self._writer.write()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class ResumableTensorboardWriter(_OpenedAtFirstWrite):
    """fast-reid's curves; when a run is resumed, TensorBoard drops what it wrote beyond the checkpoint."""

    def _open(self, first_iteration: int | None) -> EventWriter:
        return TensorboardXWriter(self._path, purge_step=first_iteration)


class ResumableJSONWriter(_OpenedAtFirstWrite):
    """fast-reid's metrics.json; a resumed run first removes what it wrote beyond the checkpoint."""

    def _open(self, first_iteration: int | None) -> EventWriter:
        if first_iteration is not None and Path(self._path).is_file():
            drop_lines_from(Path(self._path), first_iteration)
        return JSONWriter(self._path)


def drop_lines_from(path: Path, iteration: int) -> None:
    """Removes the lines of a metrics.json of this iteration and later ones, and a last line that a kill cut off.

    The line of a final evaluation stands under the iteration that would come next; it goes, too, since the resumed run
    evaluates again.
    """
    kept, lines = [], path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for line in lines:
        try:
            if json.loads(line)["iteration"] >= iteration:
                continue
        except (ValueError, KeyError, TypeError):
            if line is lines[-1]:
                continue
        kept.append(line)
    if kept != lines:
        write_atomically(path, "".join(kept).encode())
