"""The learning rate: whether its schedule fits the length of a training, and what it is after a resume.

fast-reid counts the warm-up in iterations and the rest in epochs, which begin with the first whole epoch behind the
warm-up (or behind ``SOLVER.DELAY_EPOCHS``).
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.engine import hooks

from fastreid_clip3d.common.near_names import did_you_mean
from fastreid_clip3d.errors import ClearError

logger = logging.getLogger(__name__)

SCHEDULES = ("MultiStepLR", "CosineAnnealingLR")
"""The values of ``SOLVER.SCHED`` for which fast-reid has settings."""

WARMUP_METHODS = ("constant", "linear", "exp")

_SETTINGS = ("T_max", "eta_min", "milestones", "gamma", "base_lrs", "warmup_factor", "warmup_iters", "warmup_method")
"""What a scheduler's state says about its course; the rest says how far it is."""

_IMPLEMENTATION = ("fused", "foreach", "capturable", "differentiable", "freeze_status")
"""Settings of an optimiser that choose how it computes, not what."""


def with_warmup_in_iterations(cfg: CfgNode, iterations_per_epoch: int) -> CfgNode:
    """The config with ``SOLVER.WARMUP_EPOCHS`` turned into ``SOLVER.WARMUP_ITERS``.

    Raises:
        ClearError: both are set.
    """
    epochs = cfg.SOLVER.WARMUP_EPOCHS
    if not epochs:
        return cfg
    if cfg.SOLVER.WARMUP_ITERS:
        raise ClearError(
            f"SOLVER.WARMUP_EPOCHS is {epochs} and SOLVER.WARMUP_ITERS {cfg.SOLVER.WARMUP_ITERS}: both give the length "
            "of the warm-up. Set one of them to 0."
        )
    frozen, cfg = cfg.is_frozen(), cfg.clone()
    cfg.defrost()
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_EPOCHS = round(epochs * iterations_per_epoch), 0.0
    if frozen:
        cfg.freeze()
    return cfg


def check_schedule(cfg: CfgNode, iterations_per_epoch: int) -> None:
    """Refuses a schedule that cannot run in this training; what has no effect is a warning in the log.

    Raises:
        ClearError: the keys, this training's length, and values that fit.
    """
    solver = cfg.SOLVER
    if solver.SCHED not in SCHEDULES:
        raise ClearError(f"SOLVER.SCHED {solver.SCHED!r} is unknown. {did_you_mean(solver.SCHED, SCHEDULES)}")
    if solver.MAX_EPOCH < 1:
        raise ClearError(f"SOLVER.MAX_EPOCH is {solver.MAX_EPOCH}; it must be at least 1.")
    if solver.WARMUP_ITERS < 0 or solver.DELAY_EPOCHS < 0:
        raise ClearError(
            f"SOLVER.WARMUP_ITERS is {solver.WARMUP_ITERS} and SOLVER.DELAY_EPOCHS {solver.DELAY_EPOCHS}; neither may "
            "be negative."
        )
    if solver.WARMUP_ITERS and solver.WARMUP_METHOD not in WARMUP_METHODS:
        raise ClearError(
            f"SOLVER.WARMUP_METHOD {solver.WARMUP_METHOD!r} is unknown. "
            f"{did_you_mean(solver.WARMUP_METHOD, WARMUP_METHODS)}"
        )
    length = (
        f"This training has {_epochs(solver.MAX_EPOCH)} (SOLVER.MAX_EPOCH) of {iterations_per_epoch} iterations, as "
        "many as the training set has whole batches"
    )
    warmup_epochs = math.ceil(solver.WARMUP_ITERS / iterations_per_epoch)
    if warmup_epochs >= solver.MAX_EPOCH and solver.WARMUP_ITERS:
        most = (solver.MAX_EPOCH - 1) * iterations_per_epoch
        raise ClearError(
            f"{length}. A warm-up of {solver.WARMUP_ITERS} iterations fills all epochs, so {solver.SCHED} never "
            f"begins. Set SOLVER.WARMUP_EPOCHS to 0 and SOLVER.WARMUP_ITERS to {'at most ' if most else ''}{most}, or "
            "raise SOLVER.MAX_EPOCH."
        )
    first = max(warmup_epochs, solver.DELAY_EPOCHS)
    if first >= solver.MAX_EPOCH:
        logger.warning(
            f"{length}. SOLVER.DELAY_EPOCHS {solver.DELAY_EPOCHS} keeps the learning rate at SOLVER.BASE_LR in all of "
            f"them; {solver.SCHED} never begins."
        )
    elif solver.SCHED == "MultiStepLR":
        late = [step for step in solver.STEPS if step >= solver.MAX_EPOCH - max(warmup_epochs - 1, solver.DELAY_EPOCHS)]
        if late:
            logger.warning(
                f"{length}. SOLVER.STEPS {', '.join(map(str, late))} lie beyond its end (fast-reid counts them from "
                "the last epoch of the warm-up on), so the learning rate is not lowered there."
            )


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


class LearningRate(hooks.LRScheduler):
    """fast-reid's hook, with a warm-up that follows the iterations and nothing else.

    fast-reid's hook reads the loss scale in every step, so that a skipped step does not advance the warm-up. That makes
    the host wait for the device. With fast-reid's hook, a resumed run would freeze ``MODEL.FREEZE_LAYERS`` again.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scheduler: dict[str, Any], freeze_iters: int) -> None:
        super().__init__(optimizer, scheduler)
        self.freeze_iters = freeze_iters
        self._thawed = False

    def before_step(self) -> None:
        if not self._thawed and self.trainer.iter >= self.freeze_iters:
            for group in self._optimizer.param_groups:
                group["freeze_status"] = "normal"
            self._thawed = True

    def after_step(self) -> None:
        rate = self._optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        if self.trainer.iter + 1 <= self.trainer.warmup_iters:
            self._scheduler["warmup_sched"].step()


class FreshSchedule:
    """Optimiser settings and schedulers as the config sets them, before a checkpoint brings those of its own run."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedulers: dict[str, Any]) -> None:
        self._optimizer, self._schedulers = optimizer, schedulers
        self._groups = [_settings_of(group) for group in optimizer.param_groups]
        self._states = {name: copy.deepcopy(scheduler.state_dict()) for name, scheduler in schedulers.items()}

    def impose(self, epoch: int, iterations_per_epoch: int, warmup_iters: int, delay_epochs: int) -> None:
        """After a checkpoint was loaded: the config decides, and a change against the checkpoint's run is reported.

        The rate becomes what it is at this epoch in a training that has had this config from its beginning. Where the
        config is the run's own, that is the rate in the checkpoint.

        Args:
            epoch: the epoch that comes next, from 0.
        """
        changed = sorted(self._changes())
        saved_rate = max(group["lr"] for group in self._optimizer.param_groups)
        for group, fresh in zip(self._optimizer.param_groups, self._groups):
            group.update(fresh)
        for name, scheduler in self._schedulers.items():
            scheduler.load_state_dict(copy.deepcopy(self._states[name]))
        self._advance(epoch, iterations_per_epoch, warmup_iters, delay_epochs)
        rate = max(group["lr"] for group in self._optimizer.param_groups)
        if changed or not math.isclose(rate, saved_rate, rel_tol=1e-6):
            logger.warning(
                f"This config differs from that of the run that is resumed ({', '.join(changed) or 'its schedule'}). "
                "Training goes on with this config, as if it had held from the beginning: the learning rate at epoch "
                f"{epoch} is {rate:.3g}, and {saved_rate:.3g} in the checkpoint."
            )

    def _changes(self) -> set[str]:
        """What differs between the checkpoint's settings and the config's, in words."""
        changes = set()
        for group, fresh in zip(self._optimizer.param_groups, self._groups):
            for key, value in fresh.items():
                if key not in ("lr", "initial_lr", *_IMPLEMENTATION) and _plain(group.get(key)) != _plain(value):
                    changes.add(f"{key} {value} instead of {group.get(key)}")
        for name, scheduler in self._schedulers.items():
            saved, fresh = _course(scheduler.state_dict()), _course(self._states[name])
            for key in fresh:
                if saved.get(key) != fresh[key]:
                    shown = [max(part[key]) if key == "base_lrs" else part[key] for part in (fresh, saved)]
                    changes.add(f"{key} {shown[0]} instead of {shown[1]}")
        return changes

    def _advance(self, epoch: int, iterations_per_epoch: int, warmup_iters: int, delay_epochs: int) -> None:
        """Takes the schedulers from the beginning to an epoch, by the rule of :class:`LearningRate`."""
        with warnings.catch_warnings():  # torch warns of steps without a step of the optimiser
            warnings.simplefilter("ignore", UserWarning)
            if "warmup_sched" in self._schedulers:
                for _ in range(min(epoch * iterations_per_epoch, warmup_iters)):
                    self._schedulers["warmup_sched"].step()
            for done in range(1, epoch + 1):
                if done * iterations_per_epoch + 1 > warmup_iters and done > delay_epochs:
                    self._schedulers["lr_sched"].step()


def _settings_of(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _course(state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: sorted(state[key].elements()) if key == "milestones" else _plain(state[key])
        for key in _SETTINGS
        if key in state
    }
