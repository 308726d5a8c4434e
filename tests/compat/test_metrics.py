"""Losses that wait on the device: what is stored in the end is what reading in every step stores."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from fastreid.utils import comm
from fastreid.utils.events import EventStorage

from fastreid_clip3d.compat import classification, metrics

STEPS = 7
READ_AT = (2, 4, 6)


def losses_of(iteration: int) -> dict[str, torch.Tensor]:
    """Losses of one step; the second one begins at step 3, as the clothes loss does."""
    losses = {"loss_a": torch.tensor(1.0 / (iteration + 1)), "loss_b": torch.tensor([0.1 * iteration])}
    return losses if iteration >= 3 else {"loss_a": losses["loss_a"]}


def logged(wait: bool) -> EventStorage:
    """The storage after seven steps; some of them wait."""
    logits, classes = torch.eye(3), torch.tensor([0, 1, 0])
    with EventStorage() as storage:
        for iteration in range(STEPS):
            storage.iter = iteration
            classification.log_accuracy(logits.roll(iteration, 0), classes)
            trainer = SimpleNamespace(iter=iteration, losses_wait=wait and iteration not in READ_AT)
            metrics.write_metrics(trainer, losses_of(iteration), 0.25 * iteration)
            assert storage.iter == iteration
            if trainer.losses_wait:
                newest = max((at for _, at in storage.latest().values()), default=-1)
                assert newest == max((step for step in READ_AT if step < iteration), default=-1)
    return storage


def test_each_step_is_stored_under_its_own_iteration() -> None:
    at_once, later = logged(wait=False), logged(wait=True)
    assert set(later.histories()) == {"loss_a", "loss_b", "total_loss", "data_time", "cls_accuracy"}
    for name, history in at_once.histories().items():
        assert later.history(name).values() == history.values(), name
    assert later.latest() == at_once.latest()
    assert later.latest_with_smoothing_hint(20) == at_once.latest_with_smoothing_hint(20)
    assert [iteration for _, iteration in later.history("total_loss").values()] == list(range(STEPS))


def test_a_loss_that_was_not_finite_is_named_with_its_iteration() -> None:
    values = (1.0, float("nan"), 2.0)
    with EventStorage() as storage:
        for iteration, value in enumerate(values[:2]):
            metrics.write_metrics(SimpleNamespace(iter=iteration, losses_wait=True), {"a": torch.tensor(value)}, 0.0)
        with pytest.raises(FloatingPointError, match="iteration=1(.|\n)*'a': nan"):
            metrics.write_metrics(SimpleNamespace(iter=2, losses_wait=False), {"a": torch.tensor(values[2])}, 0.0)
        assert storage.latest()["total_loss"] == (1.0, 0), "the steps before it are stored"


def test_processes_talk_only_when_losses_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = []

    def gather(mine: list) -> list:
        gathered.append(len(mine))
        return [mine, [({name: value + 1 for name, value in losses.items()}, 9.0) for losses, _ in mine]]

    monkeypatch.setattr(comm, "gather", gather)
    with EventStorage() as storage:
        for iteration in range(3):
            trainer = SimpleNamespace(iter=iteration, losses_wait=iteration < 2)
            metrics.write_metrics(trainer, {"a": torch.tensor(float(iteration))}, 0.5)
    assert gathered == [3]
    assert storage.history("total_loss").values() == [(0.5, 0), (1.5, 1), (2.5, 2)]
    assert storage.latest()["data_time"] == (9.0, 2)
