"""A network without its batch norms answers as with them, or keeps them."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from fastreid_clip3d.teacher import load_teacher
from fastreid_clip3d.teacher.clip import create_open_clip
from fastreid_clip3d.teacher.folding import fold_batch_norm
from fastreid_clip3d.teacher.preprocess import normalize
from fastreid_clip3d.teacher.sources import find_weights


def norms(model: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())


def with_statistics(model: nn.Module, size: int = 64) -> nn.Module:
    """In eval mode, with weights and running statistics that are not those of a fresh model."""
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    for _ in range(3):
        model.train()(torch.randn(8, 3, size, size))
    return model.eval()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv2_100"])
def test_all_norms_go_and_the_answers_stay(name: str) -> None:
    model = with_statistics(timm.create_model(name, num_classes=0))
    folded = fold_batch_norm(model, torch.randn(2, 3, 64, 64))
    images = torch.randn(3, 3, 64, 64)
    assert norms(model) > 0 and norms(folded) == 0
    torch.testing.assert_close(folded(images), model(images), atol=1e-4, rtol=1e-3)
    assert not any(part.requires_grad for part in folded.parameters() if part.ndim == 4)


def test_clips_own_residual_network() -> None:
    from open_clip.modified_resnet import ModifiedResNet

    model = with_statistics(ModifiedResNet((1, 1, 1, 1), 32, 4, image_size=64, width=16))
    folded = fold_batch_norm(model, torch.randn(2, 3, 64, 64))
    images = torch.randn(3, 3, 64, 64)
    assert norms(model) > 0 and norms(folded) == 0
    torch.testing.assert_close(folded(images), model(images), atol=1e-4, rtol=1e-3)


class UsedTwice(nn.Module):
    """The convolution's own output counts beside the normalised one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made = self.conv(images)
        return (self.norm(made) + made).mean((2, 3))


class CalledTwice(UsedTwice):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.norm(self.conv(images)) + self.norm(self.conv(images * 2))).mean((2, 3))


@pytest.mark.parametrize("kind", [UsedTwice, CalledTwice])
def test_what_cannot_be_folded_stays(kind: type[nn.Module]) -> None:
    model = with_statistics(kind())
    assert fold_batch_norm(model, torch.randn(2, 3, 64, 64)) is model


def test_a_network_without_norms_is_itself() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    assert fold_batch_norm(model, torch.randn(2, 3, 8, 8)) is model


def test_the_embedded_teacher_is_open_clips_model_to_rounding() -> None:
    teacher = load_teacher("embedded")
    plain = create_open_clip(find_weights("embedded", ""), "embedded", "").eval()
    images = torch.randint(0, 256, (4, 3, *teacher.image_size), dtype=torch.uint8)
    ready = normalize(images, teacher._mean, teacher._std)
    with torch.no_grad():
        expected = plain.encode_image(ready)
    assert norms(plain) > 0 and norms(teacher._model) == 0
    torch.testing.assert_close(teacher.encode_images(images), expected, atol=1e-4, rtol=1e-4)
