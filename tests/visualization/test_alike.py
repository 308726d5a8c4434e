"""Which patches make two pictures alike: shares against pairs of patches one by one, and against the similarity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from open_clip import transformer
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from PIL import Image
from timm.models import swin_transformer, vision_transformer

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.model import load_torch_model
from fastreid_clip3d.inference.towers import TowerModel
from fastreid_clip3d.teacher.preprocess import ImageTransform
from fastreid_clip3d.visualization.alike import alike_sheet, find_alike, patch_shares
from tests.inference.conftest import picture, write_run
from tests.standins import small_config


def test_a_share_is_the_sum_over_pairs_of_patches() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.standard_normal((6, 4)), generator.standard_normal((5, 4))
    lengths = np.linalg.norm(first.sum(0)) * np.linalg.norm(second.sum(0))
    pairs = np.array([[np.dot(a, b) / lengths for b in second] for a in first])
    found = patch_shares(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(found[0].numpy(), pairs.sum(1), rtol=1e-9)
    np.testing.assert_allclose(found[1].numpy(), pairs.sum(0), rtol=1e-9)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    cfg = small_config()
    cfg.MODEL.HEADS.NAME, cfg.MODEL.HEADS.POOL_LAYER = "EmbeddingHead", "GlobalAvgPool"
    folder = tmp_path_factory.mktemp("alike") / "run"
    write_run(folder, cfg)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[str, str]:
    for number in (1, 2):
        picture(number).save(tmp_path / f"p{number}.png")
    return str(tmp_path / "p1.png"), str(tmp_path / "p2.png")


def test_shares_add_up_to_the_similarity_of_an_average_pooled_student(run: Path, pictures: tuple[str, str]) -> None:
    model = load_torch_model(run, "cpu")
    features = model(list(pictures))
    found = find_alike(model, *pictures)
    assert found.similarity == pytest.approx(float(features[0] @ features[1]), abs=1e-6)
    assert [float(own.sum()) for own in found.shares] == pytest.approx([found.similarity] * 2, abs=1e-4)
    assert found.shares.shape == (2, *model.map_size) and float(found.shares.std()) > 1e-4


def test_equal_pictures_have_equal_maps_and_the_side_that_differs_is_blue(run: Path, tmp_path: Path) -> None:
    """Two pictures with one upper half: the upper patches are the more alike ones."""
    one, other = (np.asarray(picture(seed, 64, 32)).copy() for seed in (3, 4))
    other[:32] = one[:32]
    paths = []
    for number, pixels in enumerate((one, other)):
        paths.append(str(tmp_path / f"half{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    model = load_torch_model(run, "cpu")
    upper, lower = find_alike(model, *paths).shares[0].chunk(2)
    assert float(upper.mean()) > float(lower.mean())
    same = find_alike(model, paths[0], paths[0])
    assert torch.equal(same.shares[0], same.shares[1]) and same.explained == pytest.approx(1, abs=1e-4)


def test_the_verb_draws_both_pictures(run: Path, pictures: tuple[str, str], tmp_path: Path, capsys) -> None:
    output = tmp_path / "alike.png"
    words = ["visualize", "alike", *pictures, "--model", str(run), "--device", "cpu", "--output", str(output)]
    assert run_verb(words) == 0 and "similarity 0." in capsys.readouterr().out.replace("-0.", "0.")
    with Image.open(output) as drawn:
        assert drawn.width > drawn.height and len(set(drawn.convert("RGB").getdata())) > 100
    model = load_torch_model(run, "cpu")
    found = find_alike(model, *pictures)
    assert alike_sheet(pictures, found, tmp_path / "own.svg", model.size).stat().st_size > 1000


# -- other models ----------------------------------------------------------------------------------------------------


SIZE = (32, 48)


def tower_model(network: torch.nn.Module) -> TowerModel:
    """A network of random weights as a model for images of 32 x 48 pixels."""
    transform = ImageTransform(SIZE, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    return TowerModel("timm:tiny", "timm tiny", network.eval(), transform, "cpu")


def small_vit(**options: object) -> torch.nn.Module:
    shape: dict = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0}
    return vision_transformer.VisionTransformer(**{**shape, **options})


def average_pooled(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "convolutions":
        return timm.create_model("test_resnet", num_classes=0)
    if name == "ViT with registers":
        return small_vit(reg_tokens=3, global_pool="avg", fc_norm=False)
    if name == "Swin":
        shape: dict = {"patch_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 2}
        return swin_transformer.SwinTransformer(img_size=SIZE, num_classes=0, **shape)
    tower = TimmModel("test_resnet", embed_dim=16, pool="avg", proj="linear")
    tower.trunk = timm.create_model("test_resnet", num_classes=0)
    return tower


@pytest.mark.parametrize(
    ("name", "grid"),
    [("convolutions", (1, 2)), ("ViT with registers", (4, 6)), ("Swin", (4, 6)), ("open_clip's TimmModel", (1, 2))],
)
def test_shares_of_an_average_pooled_tower_add_up(name: str, grid: tuple, pictures: tuple[str, str]) -> None:
    model = tower_model(average_pooled(name))
    features = model(list(pictures))
    found = find_alike(model, *pictures)
    assert found.similarity == pytest.approx(float(features[0] @ features[1]), abs=1e-6)
    assert [float(own.sum()) for own in found.shares] == pytest.approx([found.similarity] * 2, abs=1e-4)
    assert found.shares.shape == (2, *grid) and float(found.shares.std()) > 1e-5


@pytest.mark.parametrize("registers", [0, 2])
def test_the_feature_of_a_patch_of_timms_vit_is_its_token(registers: int, pictures: tuple[str, str]) -> None:
    torch.manual_seed(0)
    network = small_vit(reg_tokens=registers)
    model = tower_model(network)
    with torch.no_grad():
        images = (model.preprocess(list(pictures)) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2
        (maps,) = network.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    torch.testing.assert_close(model.patch_features(list(pictures)), maps.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-4)


def test_the_feature_of_a_patch_of_a_clip_tower_is_its_projected_token(pictures: tuple[str, str]) -> None:
    torch.manual_seed(0)
    network = transformer.VisionTransformer(SIZE, 8, 24, 2, 2, 2.0, output_dim=10)
    model = tower_model(network)
    with torch.no_grad():
        images = (model.preprocess(list(pictures)) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2
        found = network.forward_intermediates(images, indices=1, normalize_intermediates=True)
        expected = found["image_intermediates"][0].permute(0, 2, 3, 1) @ network.proj
    assert expected.shape == (2, 4, 6, 10)
    torch.testing.assert_close(model.patch_features(list(pictures)), expected, atol=1e-5, rtol=1e-4)


def test_a_patch_of_a_clip_resnet_goes_through_attention_pooling(pictures: tuple[str, str]) -> None:
    torch.manual_seed(0)
    network = ModifiedResNet((1, 1, 1, 1), 10, 2, image_size=64, width=8)
    transform = ImageTransform((64, 64), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    model = TowerModel("open_clip:tiny", "open_clip tiny", network.eval(), transform, "cpu")
    found = model.patch_features(list(pictures))
    with torch.no_grad():
        images = model.preprocess(list(pictures)) / 255
        (maps,) = network.forward_intermediates(images, indices=1, intermediates_only=True)["image_intermediates"]
        corner = network.attnpool(maps[1:, :, 1:, :1].expand(1, -1, 2, 2))
    assert found.shape == (2, 2, 2, 10)
    torch.testing.assert_close(found[1, 1, 0], corner[0], atol=1e-5, rtol=1e-4)


class FiveTokens(torch.nn.Module):
    """A network whose last layer gives five tokens, or a list of them."""

    def __init__(self, is_list: bool) -> None:
        super().__init__()
        self.layer, self.is_list = torch.nn.Linear(3, 4), is_list

    def forward_features(self, images: torch.Tensor) -> object:
        tokens = self.layer(images.mean((2, 3)))[:, None].expand(-1, 5, -1)
        return [tokens] if self.is_list else tokens

    def forward_head(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.mean(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.mean((2, 3)))


def test_models_without_a_feature_map_are_refused(pictures: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ClearError, match="timm:tiny has no feature map: its 5 tokens are no grid over 32 x 48 pixels"):
        find_alike(tower_model(FiveTokens(False)), *pictures)
    with pytest.raises(ClearError, match="timm:tiny has no feature map: its last layer.*Convolutional networks"):
        find_alike(tower_model(FiveTokens(True)), *pictures)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.jit.trace(network, torch.zeros(1, 3, 32, 48)).save(str(tmp_path / "foreign.ts"))
    words = ["--model", str(tmp_path / "foreign.ts"), "--size", "32", "48", "--allow-imports", "--device", "cpu"]
    with pytest.raises(ClearError, match="foreign.ts has no feature map: an exported file gives only.*open_clip:NAME"):
        run_verb(["visualize", "alike", *pictures, *words, "--output", str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()


def test_the_verb_takes_a_tower_and_a_checkpoint_with_its_config(
    run: Path, pictures: tuple[str, str], tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "market.pth"
    moved.parent.mkdir()
    moved.symlink_to(run / "model_final.pth")
    for words in (["open_clip:embedded"], [str(moved), "--config", str(run / "config.yaml")]):
        output = tmp_path / "alike.png"
        command = ["visualize", "alike", *pictures, "--model", *words, "--device", "cpu", "--output", str(output)]
        assert run_verb(command) == 0 and output.stat().st_size > 1000
        output.unlink()
