"""Checkpoints that any kill leaves loadable, read without unrestricted pickle and loaded whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fastreid.engine import hooks
from fastreid.utils.checkpoint import Checkpointer

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.weights import (
    apply_weights,
    checkpoint_of_tag,
    find_checkpoint,
    load_weights,
    named_tensors,
    read_file,
)


class SafeCheckpointer(Checkpointer):
    """fast-reid's checkpointer, with files that appear whole or not at all, and weights that fit or are refused.

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
        write_atomically(path, lambda file: torch.save(data, file))
        self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Names the newest checkpoint in the file ``last_checkpoint``."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        write_atomically(path, last_filename_basename.encode())

    def get_checkpoint_file(self) -> str:
        """The checkpoint that ``last_checkpoint`` names; a name that is not there is a :class:`ClearError`."""
        return str(checkpoint_of_tag(Path(self.save_dir, "last_checkpoint")))

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Loads the model's weights, and for a resume (`checkpointables` None) all the state of the training.

        Returns:
            For a resume what else the checkpoint holds, ``epoch`` for one.

        Raises:
            ClearError: a file that is missing or damaged, that lacks weights or state, or belongs to another network
                or optimiser; names it.
        """
        if not path:
            self.logger.info("MODEL.WEIGHTS is empty: training starts from the backbone's weights alone")
            return {}
        if checkpointables is not None:
            if "://" in path:
                path = self.path_manager.get_local_path(path)
            load_weights(self.model, path, "start")
            return {}
        checkpoint = find_checkpoint(path, "--resume")
        self.logger.info(f"Resuming from {checkpoint}")
        content = read_file(checkpoint, "--resume")
        weights = named_tensors(content, checkpoint, "--resume")
        missing = [key for key in ("model", "optimizer", "epoch") if key not in content]
        if missing or not isinstance(content.get("epoch"), int):
            raise ClearError(
                f"{checkpoint} cannot be resumed: it has no {' and no '.join(missing or ['epoch number'])}, which our "
                "trainer writes. To start another training from its weights, leave --resume out and set MODEL.WEIGHTS."
            )
        apply_weights(self.model, weights, "resume", f"{checkpoint} (--resume)")
        del content["model"]
        for key, owner in self.checkpointables.items():
            if key in content:
                self._load_state(owner, content.pop(key), key, checkpoint)
        return dict(content)

    def _load_state(self, owner: Any, state: Any, key: str, checkpoint: Path) -> None:
        try:
            if isinstance(owner, torch.optim.Optimizer):
                check_same_optimizer(owner, state, checkpoint)
            owner.load_state_dict(state)
        except ClearError:
            raise
        except Exception as error:  # whatever a state of another kind makes its owner do
            raise ClearError(
                f"{checkpoint}: its {key} does not fit this config ({type(error).__name__}: {error}). Resume with the "
                "config of the run, or leave --resume out and set MODEL.WEIGHTS."
            ) from error


def check_same_optimizer(optimizer: torch.optim.Optimizer, state: Any, checkpoint: Path) -> None:
    """Refuses the state of another optimiser, which torch would load and then fail at in the first step.

    Raises:
        ClearError: names the checkpoint and ``SOLVER.OPT``.
    """
    groups = state.get("param_groups") if isinstance(state, Mapping) else None
    if not groups or not isinstance(groups, list):
        raise ClearError(f"{checkpoint} cannot be resumed: its optimizer has no parameter groups.")
    name = type(optimizer).__name__
    own = set(optimizer.param_groups[0]) - {"initial_lr"}
    saved = set(groups[0]) - {"initial_lr"}
    if {"momentum", "betas", "rho", "alpha", "lr_decay"} & (own ^ saved):
        raise ClearError(
            f"{checkpoint} was written by another optimiser than SOLVER.OPT {name}: its settings are "
            f"{', '.join(sorted(saved - {'params'}))}. Resume with the SOLVER.OPT of the run (its config.yaml has it), "
            "or leave --resume out and start from the weights with MODEL.WEIGHTS."
        )
    if len(groups) != len(optimizer.param_groups):
        raise ClearError(
            f"{checkpoint} has {len(groups)} groups of parameters, and the network of this config has "
            f"{len(optimizer.param_groups)}. Resume with the config of the run."
        )
    # Weights are numbered by their place in the groups. The state has them in the order in which they were first
    # stepped: layers that were frozen at first come last.
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, values in state.get("state", {}).items():
        own = weights[index].numel()
        for value in values.values():
            if torch.is_tensor(value) and value.dim() and value.numel() != own:
                raise ClearError(
                    f"{checkpoint} holds an optimizer's state of {value.numel()} numbers, and this training has {own}. "
                    "It is of another network, or of a release that laid out the weights otherwise. Resume with the "
                    "config and the release of the run, or leave --resume out and set MODEL.WEIGHTS."
                )


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
