"""On fake CUDA tensors: a training step's forward pass and losses mix no devices and make the host wait for nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastreid.utils.events import EventStorage
from torch import Tensor, nn

from fastreid_clip3d.compat.classification import log_accuracy
from fastreid_clip3d.compat.metrics import write_metrics
from fastreid_clip3d.modeling.losses import sinkhorn
from fastreid_clip3d.modeling.meta_arch import CLIP3DReID
from fastreid_clip3d.teacher.guidance import Guidance
from tests.modeling.fake_cuda import CUDA, batch_on_cuda, fake_cuda, move, on_cuda
from tests.standins import random_batch, small_config

OURS = ("OTLoss", "GlobalDistillLoss", "BodyShapeLoss", "ClothesAdversarialLoss")
FASTREIDS = ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface")
WIDTH = 24

STUDENTS = {
    "ResNet": ("build_resnet_backbone", "18x", 512, {}),
    "ResNet with IBN, SE and non-local blocks": (
        "build_resnet_backbone", "50x", 2048, {"WITH_IBN": True, "WITH_SE": True, "WITH_NL": True}
    ),
    "OSNet": ("build_osnet_backbone", "x0_25", 128, {}),
    "MobileNetV2": ("build_mobilenetv2_last_stride_backbone", "1.0x", 1280, {}),
    "ShuffleNetV2": ("build_shufflenetv2_last_stride_backbone", "0.5x", 1024, {}),
    "timm's convolutions": ("build_timm_backbone", "convnext_atto", 320, {}),
    "timm's ViT": ("build_timm_backbone", "vit_tiny_patch16_224", 192, {}),
    "fast-reid's ViT": ("build_vit_backbone", "small", 768, {}),
}  # fmt: skip
PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


def config(student: str = "ResNet", losses: tuple[str, ...] = ("CrossEntropyLoss", *OURS)) -> Any:
    cfg = small_config(losses=losses)
    cfg.MODEL.LOSSES.CLOTHES_ADVERSARIAL.CLOTHES_PERSONS = [0, 0, 1, 1, 2]
    backbone = cfg.MODEL.BACKBONE
    backbone.NAME, backbone.DEPTH, backbone.FEAT_DIM, options = STUDENTS[student]
    for key, value in options.items():
        backbone[key] = value
    return cfg


def step(cfg: Any, precision: torch.dtype | None = None) -> dict[str, Tensor]:
    """The losses of one step on fake CUDA tensors; the teacher's answers are in the batch."""
    model = CLIP3DReID(cfg, guidance=Guidance(torch.zeros(32, WIDTH))).train()
    batch = random_batch()
    batch |= {"teacher_features": torch.zeros(6, WIDTH), "phrase_choices": torch.zeros(6, 16, dtype=torch.int64)}
    del batch["teacher_images"]
    with fake_cuda(), EventStorage() as storage:
        storage.epoch = 0
        move(model)
        with contextlib.nullcontext() if precision is None else torch.autocast("cuda", precision):
            losses = model(batch_on_cuda(batch))
    return losses


@pytest.mark.parametrize(
    ("student", "precision"),
    [*(("ResNet", precision) for precision in PRECISIONS), *((student, "float16") for student in list(STUDENTS)[1:])],
)
def test_a_step_of_each_student(student: str, precision: str) -> None:
    losses = step(config(student), PRECISIONS[precision])
    assert set(losses) == {
        "loss_cls", "loss_ot", "loss_global", "loss_ot_synthetic", "loss_body_shape", "loss_clothes", "loss_cal"
    }  # fmt: skip
    for name, loss in losses.items():
        assert loss.device == CUDA, name
        assert loss.dtype == torch.float32, f"{name} is summed in {loss.dtype}"


@pytest.mark.parametrize("loss", FASTREIDS)
@pytest.mark.parametrize("head", ["EmbeddingHead", "MLPHead", "ClasHead"])
def test_a_step_with_fastreids_losses_and_heads(head: str, loss: str) -> None:
    cfg = config(losses=(loss, *OURS[:3]))
    cfg.MODEL.HEADS.NAME = head
    assert all(value.device == CUDA for value in step(cfg).values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.SYNTHETIC_STATISTICS", "separate"),
        ("MODEL.HEADS.NECK_FEAT", "after"),
        ("MODEL.LOSSES.OT.NUM_ITERS", 50),
        ("MODEL.LOSSES.OT.REG", 0.01),
        ("MODEL.LOSSES.OT.TOLERANCE", 1e-3),
        ("MODEL.LOSSES.OT.DIFFERENTIABLE", True),
        ("MODEL.LOSSES.OT.CONTRAST", 0.5),
        ("MODEL.LOSSES.CE.EPSILON", -1.0),
    ],
)
def test_a_step_with_a_changed_key(key: str, value: Any) -> None:
    cfg = config()
    cfg.merge_from_list([key, value])
    assert all(loss.device == CUDA for loss in step(cfg, torch.float16).values())


@pytest.mark.parametrize("log_domain", [False, True])
def test_marginals_of_a_caller_go_to_the_device_of_the_cost(log_domain: bool) -> None:
    with fake_cuda(copies=True):
        cost = on_cuda(torch.zeros(2, 5, 3))
        plan = sinkhorn(
            cost, 0.5, 20, row_marginals=torch.ones(5), column_marginals=torch.ones(2, 3), log_domain=log_domain
        )
        assert plan.device == CUDA


def test_the_log_reads_losses_only_where_it_is_written() -> None:
    """With copies allowed, so that nothing but the reading itself can raise."""
    with fake_cuda(copies=True), EventStorage():
        losses = {"loss_cls": on_cuda(torch.zeros(())), "loss_ot": on_cuda(torch.zeros(1))}
        for iteration in range(3):
            log_accuracy(on_cuda(torch.zeros(4, 3)), on_cuda(torch.zeros(4, dtype=torch.int64)))
            write_metrics(SimpleNamespace(iter=iteration, losses_wait=True), losses, 0.0)
        with pytest.raises(Exception, match="Data|data-dependent|_local_scalar_dense|tolist|fake"):
            write_metrics(SimpleNamespace(iter=3, losses_wait=False), losses, 0.0)


# -- the check itself: each mistake that it is to find --


def test_two_devices_in_one_operation_are_noticed() -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match="two different devices|Unhandled FakeTensor Device"):
        on_cuda(torch.zeros(3)) + torch.zeros(3)


@pytest.mark.parametrize(
    "ask",
    [
        lambda tensor: tensor.sum().item(),
        lambda tensor: bool((tensor > 0).all()),
        lambda tensor: tensor.nonzero(),
        lambda tensor: tensor[tensor > 0].cpu(),
        lambda tensor: tensor.tolist(),
        lambda tensor: tensor.cpu(),
        lambda tensor: torch.zeros(3).copy_(tensor),
        lambda tensor: torch.zeros(3).to(tensor.device),
    ],
    ids=["item", "bool", "nonzero", "mask", "tolist", "cpu", "copy", "upload"],
)
def test_a_question_for_a_value_is_noticed(ask: Callable[[Tensor], Any]) -> None:
    with fake_cuda(), pytest.raises(Exception, match="Data|dynamic|Dynamic|host|_local_scalar_dense|nonzero"):
        ask(on_cuda(torch.zeros(3)))


def test_what_a_module_holds_outside_its_buffers_is_noticed() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.ones(3)

        def forward(self, given: Tensor) -> Tensor:
            return given * self.table

    module = Forgetful()
    with fake_cuda(), pytest.raises(Exception, match="device|FakeTensor"):
        move(module)(on_cuda(torch.zeros(3)))
