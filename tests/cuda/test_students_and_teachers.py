"""Heads, students and teachers: values and gradients on the device as on a CPU."""

from __future__ import annotations

from collections.abc import Mapping

import open_clip
import pytest
import torch
from torch import Tensor, nn

from fastreid_clip3d.modeling.backbones.build import build_student, student_maps
from fastreid_clip3d.modeling.meta_arch import CLIP3DReID
from fastreid_clip3d.teacher.clip import Fingerprint, Teacher, load_teacher
from fastreid_clip3d.teacher.guidance import Guidance
from fastreid_clip3d.teacher.preprocess import ImageTransform
from tests.cuda.precision import PRECISIONS, assert_agrees, computing_in, relative_difference
from tests.modeling.test_cuda_without_a_device import STUDENTS, config

IN_TRAINING = ("float32", "float32 with TF32", "float16", "bfloat16")


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 64, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_small_student(precision: str, device: str) -> None:
    torch.manual_seed(0)
    assert_output_agrees(build_student(config("ResNet")), precision, device)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", IN_TRAINING)
@pytest.mark.parametrize("student", STUDENTS)
def test_every_student(student: str, precision: str) -> None:
    torch.manual_seed(0)
    assert_output_agrees(build_student(config(student)), precision, "cuda")


def with_statistics_of(images: Tensor, student: nn.Module) -> nn.Module:
    """With the statistics of a new network, some students' maps fade out below what float16 can hold."""
    for module in student.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean over the passes: here, this one's statistics
    with torch.no_grad():
        student_maps(student.train(), images)
    return student.eval()


def assert_output_agrees(student: nn.Module, precision: str, device: str) -> None:
    """The feature map and all gradients, in eval mode: batch norms of a small batch amplify every rounding.

    In float32 they agree closely. With fewer digits, 50 layers of random weights amplify the rounding of each: an H200
    was up to 0.45 away in the gradients. A gradient that has nothing to do with the right one is 1.4 away.
    """
    exact = precision in ("float64", "float32")
    tolerance = 3 * PRECISIONS[precision].tolerance  # many layers
    student = with_statistics_of(images(16), student)
    results = []
    for where, name in (("cpu", "float32"), (device, precision)):
        student = student.to(where)
        student.zero_grad()
        with computing_in(PRECISIONS[name], where):
            found = student_maps(student, images().to(where)).feature_map
        found.float().square().mean().backward()
        gradients = [weight.grad.flatten().cpu() for weight in student.parameters() if weight.grad is not None]
        results.append((found.detach().float().cpu(), torch.cat(gradients)))
    assert results[0][0].abs().max() > 0
    assert relative_difference(results[1][0], results[0][0]) <= tolerance
    assert relative_difference(results[1][1], results[0][1]) <= (3 * tolerance if exact else 0.7)


@pytest.mark.parametrize("head", ["MLPHead", "EmbeddingHead"])
@pytest.mark.parametrize("layer", ["Linear", "ArcSoftmax", "CosSoftmax", "CircleSoftmax"])
def test_heads(head: str, layer: str, device: str) -> None:
    cfg = config(losses=("CrossEntropyLoss",))
    cfg.MODEL.HEADS.NAME, cfg.MODEL.HEADS.CLS_LAYER = head, layer
    torch.manual_seed(0)
    heads = CLIP3DReID(cfg, guidance=Guidance(torch.zeros(32, 24))).heads.train()
    if layer != "Linear":
        nn.init.normal_(heads.weight, std=0.1)
    maps = torch.randn(8, 512, 4, 2, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(8) % 5

    def compute(heads: nn.Module, given: Mapping[str, Tensor]) -> Tensor:
        outputs = heads(given["maps"], given["targets"])
        return outputs["cls_outputs"].float().square().mean() + outputs["features"].float().square().mean()

    if layer == "Linear":
        assert_agrees(compute, heads, {"maps": maps, "targets": targets}, device, "float32")
    else:  # fast-reid's margin layers compute in float32 only
        found = [
            compute(heads.to(where), {"maps": maps.to(where), "targets": targets.to(where)})
            for where in ("cpu", device)
        ]
        assert relative_difference(found[1], found[0]) < 1e-3


def teacher_of(model: nn.Module, size: int, device: str, precision: str) -> Teacher:
    """A teacher of a model that is there already; its phrase table says nothing."""
    transform = ImageTransform((size, size), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bicubic", "squash")
    fingerprint = Fingerprint("random", "", {}, [], {}, precision)
    return Teacher(model, transform, torch.zeros(32, model.visual.output_dim), fingerprint, "", "", device, precision)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("amp", 2e-2), ("bf16", 1e-1)])
def test_the_embedded_teacher(precision: str, tolerance: float, device: str) -> None:
    pictures = torch.randint(0, 256, (4, 3, 128, 64), dtype=torch.uint8)
    expected = load_teacher(precision="fp32").encode_images(pictures)
    teacher = load_teacher(device=device, precision=precision)
    with computing_in(PRECISIONS["bfloat16"], device):  # the caller's autocast, which is not the teacher's
        features, scores, choices = teacher.label_images(pictures)
    assert features.dtype == scores.dtype == torch.float32 and features.device.type == device
    assert relative_difference(features, expected) <= tolerance
    assert choices.shape == (4, 16)


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("amp", 2e-2), ("bf16", 1e-1)])
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14"])
def test_teachers_of_the_paper(name: str, precision: str, tolerance: float) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None)
    pictures = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    expected = teacher_of(model, 224, "cpu", "fp32").encode_images(pictures)
    found = teacher_of(model, 224, "cuda", precision).encode_images(pictures)
    assert relative_difference(found, expected) <= tolerance
