"""A training step never waits for the device; compiling, memory layout and precision do not change its result."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
from fastreid.modeling.meta_arch import build_model
from fastreid.utils.events import EventStorage

from fastreid_clip3d.data.training_set import collate
from fastreid_clip3d.teacher.guidance import Guidance
from tests.standins import random_batch, small_config, tiny_teacher_folder

OURS = ("OTLoss", "GlobalDistillLoss", "BodyShapeLoss", "ClothesAdversarialLoss")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_teacher_folder(tmp_path_factory.mktemp("teacher"))


def config(teacher: str, names: tuple[str, ...] = ("CrossEntropyLoss", *OURS)) -> Any:
    cfg = small_config(teacher, names)
    cfg.MODEL.LOSSES.CLOTHES_ADVERSARIAL.CLOTHES_PERSONS = [0, 0, 1, 1, 2]
    return cfg


def build(cfg: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(cfg).train()


def losses_of(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with EventStorage() as storage:
        storage.epoch = 0
        return model(copy.deepcopy(batch))  # the student's preprocessing works in place


@pytest.mark.parametrize("num_iters", [1, 50])
@pytest.mark.parametrize("statistics", ["shared", "separate"])
def test_a_step_asks_the_device_for_nothing(
    teacher: str, num_iters: int, statistics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device has no values: .item(), bool(), nonzero() and copies to the host raise there; on CUDA they would
    wait. The test leaves out fast-reid's own losses and accuracy, which need values."""
    monkeypatch.setattr(torch, "autocast", lambda *given, **named: contextlib.nullcontext())  # meta has none
    cfg = config(teacher)
    cfg.MODEL.LOSSES.OT.NUM_ITERS, cfg.MODEL.SYNTHETIC_STATISTICS = num_iters, statistics
    model = build(cfg).to("meta")
    model._outside_module_tree = (Guidance(model.phrase_table),)  # cached: the answers are in the batch
    model.losses = lambda outputs, targets: {}
    batch = {key: value.to("meta") for key, value in random_batch().items()}
    batch |= {
        "teacher_features": torch.empty(6, 24, device="meta"),
        "phrase_choices": torch.empty(6, 16, dtype=torch.int64, device="meta"),
    }
    losses = losses_of(model, batch)
    assert set(losses) == {
        "loss_ot", "loss_global", "loss_ot_synthetic", "loss_body_shape", "loss_clothes", "loss_cal"
    }  # fmt: skip
    sum(losses.values()).backward()
    assert model.backbone.conv1.weight.grad is not None
    with pytest.raises(RuntimeError):
        losses["loss_ot"].item()  # this is how asking ends


def test_batches_for_statistics_alone_have_no_identities(teacher: str) -> None:
    """fast-reid's PreciseBN marks them by targets of -1."""
    model, batch = build(config(teacher, ("CrossEntropyLoss",))), random_batch()
    marked, zeros = ({**batch, "targets": torch.full((6,), value)} for value in (-1, 0))
    torch.testing.assert_close(losses_of(model, marked)["loss_cls"], losses_of(model, zeros)["loss_cls"])


def test_a_compiled_student_computes_the_same(teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By dynamo's tracing, with a backend that runs the traced graph as it is: compilers are torch's own matter."""
    graphs: list[torch.fx.GraphModule] = []

    def as_it_is(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **named: original(*given, **{**named, "backend": as_it_is}))
    cfg = config(teacher, ("CrossEntropyLoss", *OURS[:3]))
    plain = build(cfg)
    cfg.MODEL.COMPILE = True
    compiled = build(cfg)
    assert compiled.state_dict().keys() == plain.state_dict().keys(), "checkpoints of either serve the other"
    batch = random_batch()
    for model in (plain, compiled):
        sum(losses_of(model, batch).values()).backward()
    assert len(graphs) == 1, "one graph: the tracing broke nowhere"
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(compiled.get_parameter(name).grad, weight.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_channels_last_is_only_a_layout(teacher: str) -> None:
    batch = random_batch()
    real = [{"images": image, "targets": int(target)} for image, target in zip(batch["images"], batch["targets"])]
    synthetic = [{"synthetic_images": image} for image in batch["synthetic_images"]]
    for channels_last, stride in ((False, 64 * 32), (True, 1)):
        collated = collate([*real, *synthetic], channels_last=channels_last)
        for key in ("images", "synthetic_images"):
            assert collated[key].stride(1) == stride and torch.equal(collated[key], batch[key])
    model = build(config(teacher))
    expected = losses_of(model, batch)
    layouts = []
    model.backbone.layer4[-1].register_forward_hook(
        lambda *given: layouts.append(given[2].is_contiguous(memory_format=torch.channels_last))
    )
    found = losses_of(model, {**batch, **{key: collated[key] for key in ("images", "synthetic_images")}})
    assert layouts == [True], "the student keeps the layout to its end"
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_mixed_precision_changes_the_student_and_not_what_the_losses_are_computed_in(teacher: str) -> None:
    model, batch = build(config(teacher, ("CrossEntropyLoss", *OURS[:3]))), random_batch()
    expected = losses_of(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses_of(model, batch)
    for name, value in expected.items():
        assert torch.isfinite(found[name]), name
        assert found[name].item() == pytest.approx(value.item(), rel=0.1, abs=0.02), name
        if name in ("loss_ot", "loss_global", "loss_ot_synthetic", "loss_body_shape"):
            assert found[name].dtype == torch.float32, name
    sum(found.values()).backward()
