"""Schedules fit the length of a training or are refused, and a resumed run has the rate of its config."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fastreid.config import CfgNode
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.solver import build_lr_scheduler
from fastreid.utils.events import EventStorage

from fastreid_clip3d.config import get_cfg
from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.data.batch_check import check_batch_fits
from fastreid_clip3d.engine.schedule import FreshSchedule, LearningRate, check_schedule, with_warmup_in_iterations
from fastreid_clip3d.errors import ClearError
from tests.conftest import REPOSITORY

PER_EPOCH = 5
CONFIGS = sorted(path for path in (REPOSITORY / "configs").rglob("*.yml") if not path.name.startswith("Base-"))


def solver(**changes: object) -> CfgNode:
    cfg = get_cfg()
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.BASE_LR = 0, 4, 0.1
    cfg.SOLVER.SCHED, cfg.SOLVER.ETA_MIN_LR, cfg.SOLVER.STEPS = "CosineAnnealingLR", 0.0, [2]
    for key, value in changes.items():
        cfg.SOLVER[key] = value
    return cfg


class Run:
    """The optimiser and schedulers of a training, stepped by the hook as fast-reid's loop steps it."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.optimizer = torch.optim.Adam([self.weight], lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)
        self.schedulers = build_lr_scheduler(cfg, self.optimizer, PER_EPOCH)
        self.fresh = FreshSchedule(self.optimizer, self.schedulers)
        self.rates: list[float] = []
        self.epoch = 0

    def train(self, epochs: int) -> Run:
        hook = LearningRate(self.optimizer, self.schedulers, 0)
        trainer = SimpleNamespace(
            iter=self.epoch * PER_EPOCH,
            warmup_iters=self.cfg.SOLVER.WARMUP_ITERS,
            delay_epochs=self.cfg.SOLVER.DELAY_EPOCHS,
        )
        hook.trainer = trainer
        with EventStorage() as trainer.storage:
            for trainer.epoch in range(self.epoch, epochs):
                for _ in range(PER_EPOCH):
                    hook.before_step()
                    self.rates.append(self.optimizer.param_groups[0]["lr"])
                    self.optimizer.step()
                    hook.after_step()
                    trainer.iter += 1
                hook.after_epoch()
        self.epoch = epochs
        return self

    def resumed_from(self, other: Run) -> Run:
        self.optimizer.load_state_dict(copy.deepcopy(other.optimizer.state_dict()))
        for name, scheduler in other.schedulers.items():
            if name in self.schedulers:
                self.schedulers[name].load_state_dict(copy.deepcopy(scheduler.state_dict()))
        self.epoch, keys = other.epoch, self.cfg.SOLVER
        self.fresh.impose(self.epoch, PER_EPOCH, keys.WARMUP_ITERS, keys.DELAY_EPOCHS)
        return self


@pytest.mark.parametrize(
    "changes", [{}, {"WARMUP_ITERS": 3}, {"WARMUP_ITERS": 7}, {"DELAY_EPOCHS": 1}, {"SCHED": "MultiStepLR"}]
)
def test_resuming_the_same_config_changes_no_rate(changes: dict, caplog: pytest.LogCaptureFixture) -> None:
    whole = Run(solver(**changes)).train(4)
    for stop in (1, 2, 3):
        first = Run(solver(**changes)).train(stop)
        second = Run(solver(**changes)).resumed_from(first).train(4)
        assert first.rates + second.rates == whole.rates
    assert not caplog.records


def test_more_epochs_continue_on_the_longer_schedule_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    finished = Run(solver()).train(4)
    longer = Run(solver(MAX_EPOCH=8)).resumed_from(finished)
    assert "T_max 8 instead of 4" in caplog.text and "at epoch 4 is 0.05" in caplog.text
    longer.train(8)
    # Cosine from 0.1 to 0 in 8 epochs: half of it at epoch 4, and it only falls.
    expected = [0.05 * (1 + torch.cos(torch.tensor(torch.pi * epoch / 8)).item()) for epoch in range(4, 8)]
    assert longer.rates[::PER_EPOCH] == pytest.approx(expected)
    assert all(later <= earlier for earlier, later in zip(longer.rates, longer.rates[1:]))


def test_another_rate_takes_effect_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    first = Run(solver(SCHED="MultiStepLR")).train(1)
    second = Run(solver(SCHED="MultiStepLR", BASE_LR=0.02, WEIGHT_DECAY=0.25)).resumed_from(first)
    assert "base_lrs 0.02 instead of 0.1" in caplog.text and "weight_decay 0.25 instead of 0.0005" in caplog.text
    assert second.optimizer.param_groups[0]["weight_decay"] == 0.25
    # STEPS [2]: after two epochs, one of which the resumed run trains.
    assert second.train(4).rates == pytest.approx([0.02] * PER_EPOCH + [0.002] * 2 * PER_EPOCH)


def published_training_set(name: str) -> tuple[int, int]:
    """(people, images) of a training set, as its authors publish them."""
    fastreids_own = {"Market1501": (751, 12936), "MSMT17": (1041, 32621)}
    return fastreids_own.get(name) or DATASET_REGISTRY.get(name).official_counts["train"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_fits_the_published_size_of_its_training_set(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = load_config(str(path))
    counts = [published_training_set(name) for name in cfg.DATASETS.NAMES]
    people, images = (sum(column) for column in zip(*counts))
    check_batch_fits(cfg, SimpleNamespace(img_items=[("", k % people, 0) for k in range(images)]), world_size=1)
    per_epoch = images // cfg.SOLVER.IMS_PER_BATCH
    fitted = with_warmup_in_iterations(cfg, per_epoch)
    with caplog.at_level(logging.WARNING):
        check_schedule(fitted, per_epoch)
    assert not caplog.text, "a part of the schedule has no effect"
    iterations = cfg.SOLVER.MAX_EPOCH * per_epoch
    assert iterations >= 4 * fitted.SOLVER.WARMUP_ITERS
    assert iterations >= 8 * cfg.SOLVER.FREEZE_ITERS, "the backbone hardly trains"


@pytest.mark.parametrize("images", [64, 801, 1087, 6400])
def test_the_small_configs_fit_training_sets_of_any_size(images: int) -> None:
    for name in ("CLIP3D/synthcc.yml", "Baselines/synthcc_bagtricks.yml"):
        cfg = load_config(str(REPOSITORY / "configs" / name))
        per_epoch = images // cfg.SOLVER.IMS_PER_BATCH
        fitted = with_warmup_in_iterations(cfg, per_epoch)
        check_schedule(fitted, per_epoch)
        weight = torch.nn.Parameter(torch.ones(1))
        schedulers = build_lr_scheduler(fitted, torch.optim.Adam([weight], lr=1.0), per_epoch)
        assert schedulers["lr_sched"].T_max == (3 if per_epoch > 1 else 4)
    assert {64: 0, 801: 6, 1087: 8, 6400: 50}[images] == fitted.SOLVER.WARMUP_ITERS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"WARMUP_ITERS": 20},
            r"4 epochs .* of 5 iterations.*warm-up of 20 .* fills all epochs.*WARMUP_ITERS to at most 15",
        ),
        ({"WARMUP_ITERS": 500}, "fills all epochs, so CosineAnnealingLR never begins"),
        ({"WARMUP_ITERS": 500, "SCHED": "MultiStepLR"}, "fills all epochs, so MultiStepLR never begins"),
        ({"WARMUP_ITERS": 3, "MAX_EPOCH": 1}, "has 1 epoch .* fills all epochs.*WARMUP_ITERS to 0, or raise"),
        ({"WARMUP_ITERS": -1}, "neither may be negative"),
        ({"MAX_EPOCH": 0}, "MAX_EPOCH is 0; it must be at least 1"),
        ({"SCHED": "CosineAnealingLR"}, "Did you mean CosineAnnealingLR"),
        ({"WARMUP_ITERS": 2, "WARMUP_METHOD": "linar"}, "Did you mean linear"),
    ],
)
def test_schedules_that_cannot_run_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ClearError, match=message):
        check_schedule(solver(**changes), PER_EPOCH)


def test_the_remedy_for_a_long_warm_up_works_where_the_config_counts_it_in_epochs() -> None:
    cfg = solver(WARMUP_EPOCHS=0.5, MAX_EPOCH=1)
    with pytest.raises(ClearError, match="WARMUP_EPOCHS to 0 and SOLVER.WARMUP_ITERS to 0"):
        check_schedule(with_warmup_in_iterations(cfg, PER_EPOCH), PER_EPOCH)
    cured = solver(WARMUP_EPOCHS=0.0, WARMUP_ITERS=0, MAX_EPOCH=1)
    check_schedule(with_warmup_in_iterations(cured, PER_EPOCH), PER_EPOCH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DELAY_EPOCHS": 4}, "DELAY_EPOCHS 4 keeps the learning rate at SOLVER.BASE_LR in all"),
        ({"SCHED": "MultiStepLR", "STEPS": [2, 4]}, "STEPS 4 lie beyond its end"),
        ({"SCHED": "MultiStepLR", "STEPS": [3], "WARMUP_ITERS": 7}, "STEPS 3 lie beyond its end"),
    ],
)
def test_what_has_no_effect_is_a_warning(changes: dict, message: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_schedule(solver(**changes), PER_EPOCH)
    assert message in caplog.text


@pytest.mark.parametrize("warmup", [0, 3, 7])
def test_every_step_inside_the_training_lowers_the_rate_without_a_warning(
    warmup: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The last step that is not reported is one that has an effect, and the next one has none."""
    for step in range(1, 5):
        caplog.clear()
        cfg = solver(SCHED="MultiStepLR", STEPS=[step], WARMUP_ITERS=warmup)
        check_schedule(cfg, PER_EPOCH)
        lowered = Run(cfg).train(4).rates[-1] < 0.05
        assert lowered == ("beyond" not in caplog.text)


def test_two_lengths_of_the_warmup_contradict_each_other() -> None:
    with pytest.raises(ClearError, match="WARMUP_EPOCHS is 0.5 and SOLVER.WARMUP_ITERS 7"):
        with_warmup_in_iterations(solver(WARMUP_ITERS=7, WARMUP_EPOCHS=0.5), PER_EPOCH)


def test_layers_frozen_at_first_are_not_frozen_again_after_a_resume() -> None:
    run = Run(solver())
    run.optimizer.param_groups[0]["freeze_status"] = "freeze"
    hook = LearningRate(run.optimizer, run.schedulers, freeze_iters=3)
    hook.trainer = SimpleNamespace(iter=2)
    hook.before_step()
    assert run.optimizer.param_groups[0]["freeze_status"] == "freeze"
    hook.trainer.iter = 3
    hook.before_step()
    assert run.optimizer.param_groups[0]["freeze_status"] == "normal"
