"""fast-reid's flat parameter buffer trains the model, exactly as torch's optimiser on the single parameters does."""

from __future__ import annotations

import copy

import pytest
import torch
from fastreid.solver import build_optimizer
from torch import nn

from fastreid_clip3d import get_cfg


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_steps_are_those_of_the_optimiser_on_single_parameters(name: str) -> None:
    cfg = get_cfg()
    cfg.SOLVER.OPT, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = name, 0.01, 0.001
    cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.001
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    reference = copy.deepcopy(model)
    optimizer, wrapper = build_optimizer(cfg, model)
    settings = {"lr": 0.01, "weight_decay": 0.001} | ({"momentum": cfg.SOLVER.MOMENTUM} if name == "SGD" else {})
    reference_optimizer = getattr(torch.optim, name)(reference.parameters(), **settings)
    assert all(group["fused"] for group in optimizer.param_groups)
    before = copy.deepcopy(model.state_dict())
    for _ in range(4):
        inputs = torch.randn(8, 4)
        for network, solver in ((model, optimizer), (reference, reference_optimizer)):
            solver.zero_grad()
            network(inputs).square().mean().backward()
            solver.step()
        wrapper.assert_buffer_is_valid()
    for key, value in reference.state_dict().items():
        assert not torch.equal(model.state_dict()[key], before[key]), f"{key} was not trained"
        torch.testing.assert_close(model.state_dict()[key], value)


def test_gradients_do_not_pile_up() -> None:
    model = nn.Linear(3, 1)
    optimizer, _ = build_optimizer(get_cfg(), model)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
    assert torch.equal(model.weight.grad, torch.ones(1, 3))
