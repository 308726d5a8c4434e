"""Checkpoints that any kill leaves loadable, read without unrestricted pickle."""

from __future__ import annotations

import os
from typing import Any

import torch
from fastreid.engine import hooks
from fastreid.utils.checkpoint import Checkpointer

from fastreid_clip3d.errors import ClearError


class SafeCheckpointer(Checkpointer):
    """fast-reid's checkpointer, with files that appear whole or not at all.

    The file is written beside its place, flushed to disk and renamed; ``last_checkpoint`` is renamed after it, so it
    never names a file that is not there.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        """Writes ``{name}.pth`` with model, optimiser, schedulers and `kwargs` (numbers and strings)."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update({key: value.state_dict() for key, value in self.checkpointables.items()})
        data.update({key: value.item() if hasattr(value, "item") else value for key, value in kwargs.items()})
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        _replace_whole(path, lambda file: torch.save(data, file))
        self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        path = os.path.join(self.save_dir, "last_checkpoint")
        _replace_whole(path, lambda file: file.write(last_filename_basename.encode()))

    def load(self, path: str, checkpointables: list[str] | None = None) -> Any:
        """fast-reid's ``load``; a file that is missing or damaged is a :class:`ClearError` that names it."""
        if path and not os.path.isfile(path) and "://" not in path:
            raise ClearError(f"Checkpoint {path} (MODEL.WEIGHTS, or the run folder's last_checkpoint): no such file.")
        return super().load(path, checkpointables)

    def _load_file(self, f: str) -> dict[str, Any]:
        try:
            return torch.load(f, map_location="cpu", weights_only=True)
        except Exception as error:  # zip, pickle and EOF errors alike
            raise ClearError(
                f"Checkpoint {f} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0]}). If it is "
                "damaged, name an older one in MODEL.WEIGHTS or in the folder's file last_checkpoint."
            ) from error


def _replace_whole(path: str, write: Any) -> None:
    temporary = f"{path}.{os.getpid()}.partial"
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ClearError(
            f"Cannot write {path}: {error.strerror or error}. The checkpoint before it is untouched."
        ) from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


class LastCheckpoints(hooks.PeriodicCheckpointer):
    """Saves every ``SOLVER.CHECKPOINT_PERIOD`` epochs and at the end.

    No "best" model is kept: choosing an epoch by its score on the test set would make that score worthless.
    """

    def before_train(self) -> None:
        self.max_epoch = self.trainer.max_epoch

    def after_epoch(self) -> None:
        epoch = self.trainer.epoch
        if epoch + 1 >= self.max_epoch:
            self.checkpointer.save("model_final", epoch=epoch)
        elif self.period > 0 and (epoch + 1) % self.period == 0:
            self.checkpointer.save(f"model_{epoch:04d}", epoch=epoch)
