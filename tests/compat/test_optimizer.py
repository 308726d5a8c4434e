"""fast-reid's flat parameter buffer trains the model, exactly as torch's optimiser on the single parameters does."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastreid.solver import build_optimizer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastreid_clip3d import get_cfg
from fastreid_clip3d.compat.optimizer import ALIGNMENT, fused


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


class OddSizes(nn.Module):
    """Parameters of 1, 6, 3 and 8 numbers, as GeM pooling and a head have them."""

    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.full((1,), 3.0))
        self.first = nn.Parameter(torch.arange(6.0).view(2, 3))
        self.shift = nn.Parameter(torch.arange(3.0))
        self.last = nn.Parameter(torch.arange(8.0).view(4, 2))


@pytest.mark.parametrize("decay", [0.0, 0.001])
def test_every_parameter_and_gradient_begins_where_cuda_can_read(decay: float) -> None:
    """In fast-reid's own layout `first` begins 4 bytes behind `power`; on CUDA its norm is then a misaligned read."""
    cfg = get_cfg()
    cfg.SOLVER.OPT, cfg.SOLVER.WEIGHT_DECAY = "AdamW", decay
    model = OddSizes()
    before = copy.deepcopy(model.state_dict())
    optimizer, wrapper = build_optimizer(cfg, model)
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() % ALIGNMENT == 0 and parameter.grad.data_ptr() % ALIGNMENT == 0, name
        assert torch.equal(parameter.data, before[name]), name
    optimizer.zero_grad()
    sum(parameter.square().sum() for parameter in model.parameters()).backward()
    optimizer.step()
    wrapper.assert_buffer_is_valid()
    used = {index for one in model.parameters() for index in range(one.data_ptr(), one.data_ptr() + one.nbytes)}
    for group in optimizer.param_groups:
        for buffer in group["params"]:
            bytes_of = [buffer.data_ptr() + buffer.element_size() * place for place in range(buffer.numel())]
            gaps = torch.tensor([place not in used for place in bytes_of])
            assert not buffer.detach()[gaps].any() and not buffer.grad[gaps].any(), "the gaps stay zero"


def test_gradients_do_not_pile_up() -> None:
    model = nn.Linear(3, 1)
    optimizer, _ = build_optimizer(get_cfg(), model)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
    assert torch.equal(model.weight.grad, torch.ones(1, 3))


class HostReads(TorchDispatchMode):
    """Counts how often the host reads a value of a tensor, which on CUDA waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        self.count += "_local_scalar_dense" in str(function)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
@pytest.mark.parametrize("clipped", [False, True])
def test_a_loss_scale_changes_no_step_and_without_clipping_no_host_reads_it(name: str, clipped: bool) -> None:
    """Scaled steps are the unscaled ones; a step whose gradients overflow changes nothing and halves the scale."""
    cfg = get_cfg()
    cfg.SOLVER.OPT, cfg.SOLVER.BASE_LR, cfg.SOLVER.CLIP_GRADIENTS.ENABLED = name, 0.01, clipped
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1e9
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    scaled = copy.deepcopy(plain)
    optimizers = [build_optimizer(cfg, model)[0] for model in (plain, scaled)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(3):
        inputs = torch.randn(8, 4)
        for optimizer, model in zip(optimizers, (plain, scaled)):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            (loss if model is plain else scaler.scale(loss)).backward()
        optimizers[0].step()
        with HostReads() as reads:
            scaler.step(optimizers[1])
        scaler.update()
        assert (reads.count == 0) is not clipped
    for one, other in zip(scaled.parameters(), plain.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    before = [weight.detach().clone() for weight in scaled.parameters()]
    optimizers[1].zero_grad()
    scaler.scale(scaled(torch.full((8, 4), 1e30)).square().sum()).backward()
    scaler.step(optimizers[1])
    scaler.update()
    assert all(torch.equal(old, new) for old, new in zip(before, scaled.parameters()))
    assert scaler.get_scale() == 512.0


@pytest.mark.parametrize(
    ("kind", "device", "expected"), [("Adagrad", "cuda", False), ("Adagrad", "cpu", True), ("Adam", "cuda", True)]
)
def test_adagrad_is_fused_on_a_cpu_only(kind: str, device: str, expected: bool) -> None:
    """torch has no fused Adagrad on CUDA; here only the parameter's device is looked at."""
    optimizer = getattr(torch.optim, kind)([nn.Parameter(torch.zeros(1))])
    optimizer.param_groups[0]["params"] = [SimpleNamespace(device=torch.device(device))]
    built, _ = fused(lambda cfg: (optimizer, None))(get_cfg())
    assert bool(built.param_groups[0]["fused"]) is expected
