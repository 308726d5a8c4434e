"""MODEL.FREEZE_LAYERS with our meta-architecture: frozen weights and statistics stay, and move after FREEZE_ITERS."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from fastreid.engine.hooks import LayerFreeze
from fastreid.modeling.meta_arch import build_model
from fastreid.solver import build_optimizer
from fastreid.utils.events import EventStorage

from fastreid_clip3d.engine.schedule import LearningRate
from tests.standins import random_batch, small_config


def test_frozen_layers_stay_bit_equal_until_they_are_freed() -> None:
    cfg = small_config()
    cfg.MODEL.FREEZE_LAYERS, cfg.SOLVER.FREEZE_ITERS = ["backbone"], 2
    cfg.SOLVER.OPT, cfg.SOLVER.BASE_LR = "SGD", 0.1
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer, _ = build_optimizer(cfg, model, contiguous=False)
    hook = LayerFreeze(model, cfg.MODEL.FREEZE_LAYERS, cfg.SOLVER.FREEZE_ITERS)
    states, modes = [], []
    with EventStorage(0):
        for step in range(3):
            states.append({name: value.clone() for name, value in model.state_dict().items()})
            hook.trainer = SimpleNamespace(iter=step)
            hook.before_step()
            modes.append({part.training for part in model.backbone.modules()})
            optimizer.zero_grad()
            sum(model(random_batch(num_synthetic=0)).values()).backward()
            optimizer.step()
    states.append(model.state_dict())
    assert modes == [{False}, {False}, {True}]
    backbone = [name for name in states[0] if name.startswith("backbone.")]
    assert any("running_mean" in name for name in backbone)
    assert all(torch.equal(states[0][name], states[2][name]) for name in backbone)
    assert not torch.equal(states[0]["heads.weight"], states[2]["heads.weight"])
    moved = [name for name in backbone if not torch.equal(states[2][name], states[3][name])]
    assert len(moved) > 0.9 * len(backbone)


@pytest.mark.parametrize(("iteration", "moves"), [(1, False), (2, True)])
def test_a_resumed_run_freezes_only_while_its_iterations_are_below_freeze_iters(iteration: int, moves: bool) -> None:
    """fast-reid's optimiser counts its own steps, which begin again with every resumed run."""
    torch.manual_seed(0)
    model = torch.nn.Sequential()
    for name in ("backbone", "heads"):
        model.add_module(name, torch.nn.Linear(3, 3))
    cfg = small_config()
    cfg.MODEL.FREEZE_LAYERS, cfg.SOLVER.FREEZE_ITERS = ["backbone"], 2
    cfg.SOLVER.OPT, cfg.SOLVER.BASE_LR = "SGD", 0.1
    optimizer, _ = build_optimizer(cfg, model, contiguous=False)
    hook = LearningRate(optimizer, {}, cfg.SOLVER.FREEZE_ITERS)
    hook.trainer = SimpleNamespace(iter=iteration)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hook.before_step()
    model(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    heads = {"heads.weight", "heads.bias"}
    assert moved == (heads | {"backbone.weight", "backbone.bias"} if moves else heads)
