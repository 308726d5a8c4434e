"""Cross-entropy and accuracy against fast-reid's own functions, and that neither asks the device for a value."""

from __future__ import annotations

import importlib.util
from types import ModuleType, SimpleNamespace

import pytest
import torch
from fastreid.utils.events import EventStorage
from torch.testing import assert_close

from fastreid_clip3d.compat import classification, metrics


@pytest.fixture(scope="module")
def as_released() -> ModuleType:
    """fast-reid's module, executed anew, so that it holds its own functions."""
    spec = importlib.util.find_spec("fastreid.modeling.losses.cross_entroy_loss")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.cross_entropy_loss is not classification.cross_entropy_loss
    return module


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("eps", [0.0, 0.1, -1.0])
def test_cross_entropy_has_fastreids_value_and_gradient(
    eps: float, dtype: torch.dtype, as_released: ModuleType
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator).to(dtype)
    logits[2] = torch.tensor([0.0, 200, 0, 0, 0])  # a loss of exactly 0 where nothing is smoothed
    classes = torch.tensor([0, 4, 1, 2, 2, 3])
    results = []
    for function in (as_released.cross_entropy_loss, classification.cross_entropy_loss):
        given = logits.clone().requires_grad_()
        loss = function(given, classes, eps, 0.2)
        loss.backward()
        results.append((loss, given.grad))
    assert_close(results[1], results[0])


def test_accuracy_reaches_the_log_with_the_losses(as_released: ModuleType) -> None:
    logits = torch.tensor([[1.0, 2, 0], [3, 1, 1], [0, 1, 5], [0, 1, 5]])
    classes = torch.tensor([1, 1, 2, 0])
    with EventStorage() as storage:
        as_released.log_accuracy(logits, classes)
        expected = storage.latest()["cls_accuracy"][0]
    with EventStorage() as storage:
        classification.log_accuracy(logits, classes)
        assert "cls_accuracy" not in storage.latest(), "nobody has waited for it yet"
        metrics.write_metrics(SimpleNamespace(iter=0), {"a": torch.tensor(1.5)}, 0.0)
        assert storage.latest()["cls_accuracy"][0] == expected == 0.5
        assert storage.latest()["total_loss"][0] == 1.5, "it is no loss"


def test_the_probe_distinguishes_them(as_released: ModuleType) -> None:
    assert classification.cross_entropy_asks(as_released.cross_entropy_loss)
    assert classification.asks_the_device(as_released.log_accuracy)
    assert not classification.cross_entropy_asks(classification.cross_entropy_loss)
    assert not classification.asks_the_device(classification.log_accuracy)
