"""Every family of students: by its config alone it trains with all losses, and its maps are what they should be."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from fastreid.modeling.meta_arch import build_model
from fastreid.utils.events import EventStorage
from torch import nn

from fastreid_clip3d import get_cfg
from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones import StudentMaps, build_student, student_maps, whole_students
from fastreid_clip3d.modeling.backbones.last_stride import remove_last_stride
from tests.conftest import REPOSITORY
from tests.standins import random_batch, tiny_teacher_folder

CONFIGS = sorted(
    path for path in (REPOSITORY / "configs/CLIP3D/students").glob("*.yml") if not path.name.startswith("Base-")
)

SMALLER = {
    "resnet": ("18x", 512),
    "resnet_ibn": ("18x", 512),
    "resnet_se": ("18x", 512),
    "resnext": ("50x", 2048),
    "osnet": ("x0_25", 128),
    "repvgg": ("A0", 1280),
    "regnet": ("200y", 368),
    "vit": ("small", 768),
    "timm_convnext": ("convnext_atto", 320),
    "timm_swin": ("swin_tiny_patch4_window7_224", 768),
    "timm_eva02": ("eva02_tiny_patch14_224", 192),
    "timm_eva02_large": ("eva02_tiny_patch14_224", 192),
}
"""By config: a smaller member of the same family, so that two iterations take a second."""


@pytest.fixture(autouse=True)
def quick_initial_weights(monkeypatch) -> None:
    """Truncated normal draws take most of the time that a transformer takes to build."""
    for module in ("fastreid.modeling.backbones.vision_transformer", "timm.layers.weight_init"):
        monkeypatch.setattr(f"{module}.trunc_normal_", lambda tensor, std=1.0, **_: nn.init.normal_(tensor, std=std))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    return tiny_teacher_folder(tmp_path_factory.mktemp("teacher"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_two_iterations_of_each_family(path: Path, teacher: str) -> None:
    cfg = load_config(str(path))
    options = cfg.MODEL.BACKBONE
    options.PRETRAIN = False
    options.DEPTH, options.FEAT_DIM = SMALLER.get(path.stem, (options.DEPTH, options.FEAT_DIM))
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [64, 32]
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.HEADS.NUM_CLASSES = 5
    cfg.MODEL.TEACHER.NAME, cfg.MODEL.TEACHER.PRETRAINED, cfg.MODEL.TEACHER.MODE = teacher, "", "online"
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {name: weight.detach().clone() for name, weight in model.backbone.named_parameters()}
    patches = []
    model.ot_loss.register_forward_pre_hook(lambda _, arguments: patches.append(arguments[0].shape[1]))
    with EventStorage(0):
        for _ in range(2):
            losses = model(random_batch())
            assert {"loss_ot", "loss_global", "loss_ot_synthetic", "loss_body_shape"} < set(losses)
            assert all(torch.isfinite(loss) for loss in losses.values())
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
    with torch.no_grad():
        height, width = student_maps(model.backbone, torch.zeros(2, 3, 64, 32)).feature_map.shape[2:]
    assert patches == 4 * [height * width]  # both halves, twice
    still = [name for name, weight in model.backbone.named_parameters() if torch.equal(weight, before[name])]
    # Weights of a zeroed last layer of a block keep their inputs still for a step, never most of a network.
    assert len(still) < len(before) / 2, still


def test_both_maps_are_split_at_the_same_image() -> None:
    maps = StudentMaps(torch.arange(5.0).view(5, 1, 1, 1), torch.arange(10.0).view(5, 1, 2, 1))
    first, others = maps.split(2)
    assert first.head_input.flatten().tolist() == [0, 1] and others.head_input.flatten().tolist() == [2, 3, 4]
    assert first.feature_map.flatten().tolist() == [0, 1, 2, 3]
    assert others.feature_map.flatten().tolist() == [4, 5, 6, 7, 8, 9]


def test_meta_architectures_build_whole_students_in_the_block_and_fastreids_own_after_it() -> None:
    cfg = student_config("build_resnet_backbone", "18x", 2048, (64, 32))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.HEADS.NUM_CLASSES = 5
    with pytest.raises(ClearError, match="is 512 wide"), whole_students():
        build_model(cfg)
    build_model(cfg)  # fast-reid itself does not mind


def student_config(name: str, depth: str, feat_dim: int, size=(256, 128), **settings):
    cfg = get_cfg()
    options = cfg.MODEL.BACKBONE
    options.NAME, options.DEPTH, options.FEAT_DIM = name, depth, feat_dim
    for key, value in settings.items():
        options[key] = value
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = list(size)
    return cfg


def maps_of(cfg) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For one random image: what the backbone gives to fast-reid, and the two maps."""
    torch.manual_seed(0)
    backbone = build_student(cfg).eval()
    with torch.no_grad():
        image = torch.randn(1, 3, *cfg.INPUT.SIZE_TRAIN)
        return (backbone(image), *student_maps(backbone, image))


@pytest.mark.parametrize(
    "name, depth, feat_dim, head_size, patches",
    [
        ("build_resnet_backbone", "18x", 512, (16, 8), (16, 8)),
        ("build_vit_backbone", "small", 768, (1, 1), (16, 8)),
        ("build_mobilenetv2_last_stride_backbone", "1.0x", 1280, (16, 8), (16, 8)),
        ("build_mobilenetv3_last_stride_backbone", "Small", 1024, (16, 8), (16, 8)),
        ("build_shufflenetv2_last_stride_backbone", "1.0x", 1024, (16, 8), (16, 8)),
        ("build_timm_backbone", "resnet18", 512, (16, 8), (16, 8)),  # dilation
        ("build_timm_backbone", "mobilenetv3_small_100", 576, (16, 8), (16, 8)),  # a stride taken away
        ("build_timm_backbone", "mambaout_femto", 288, (16, 8), (16, 8)),  # channels last
        ("build_timm_backbone", "vit_tiny_patch16_224", 192, (1, 1), (16, 8)),  # class token
        ("build_timm_backbone", "deit_tiny_distilled_patch16_224", 192, (1, 1), (16, 8)),  # two leading tokens
        ("build_timm_backbone", "mixer_s16_224", 512, (16, 8), (16, 8)),  # tokens without a class token
        ("build_timm_backbone", "eva02_tiny_patch14_224", 192, (18, 9), (18, 9)),  # pools its patches
    ],
)
def test_maps(name, depth, feat_dim, head_size, patches) -> None:
    output, head_input, feature_map = maps_of(student_config(name, depth, feat_dim))
    assert torch.equal(output, head_input)
    assert head_input.shape == (1, feat_dim, *head_size)
    assert feature_map.shape == (1, feat_dim, *patches)
    assert torch.isfinite(feature_map).all()


def test_patches_of_networks_that_normalise_after_pooling_are_normalised() -> None:
    _, _, feature_map = maps_of(student_config("build_timm_backbone", "eva02_tiny_patch14_224", 192, size=(56, 28)))
    torch.testing.assert_close(feature_map.mean(1), torch.zeros(1, 4, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(feature_map.var(1, unbiased=False), torch.ones(1, 4, 2), atol=1e-2, rtol=0)


def test_a_network_that_cannot_do_without_its_last_stride_stays_as_it_was() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
            self.position = nn.Parameter(torch.zeros(1, 4, 8, 4))

        def forward(self, images):
            return self.last(self.first(images)) + self.position

    fixed = Fixed()
    assert not remove_last_stride(fixed, (32, 16))
    assert (fixed.first.stride, fixed.last.stride) == ((2, 2), (2, 2)) and fixed.training


@pytest.mark.parametrize(
    "name, depth, feat_dim",
    [("build_vit_backbone", "small", 768), ("build_timm_backbone", "vit_tiny_patch16_224", 192)],
)
def test_patch_tokens_stand_where_their_pixels_are(name: str, depth: str, feat_dim: int) -> None:
    """With blocks that pass tokens through and no position embedding, a change of one patch's pixels stays there."""
    backbone = build_student(student_config(name, depth, feat_dim, size=(64, 32))).eval()
    vit = getattr(backbone, "model", backbone)
    vit.blocks = nn.Sequential()
    image = torch.zeros(1, 3, 64, 32)
    changed = image.clone()
    changed[:, :, 32:48, 16:32] = 1.0  # row 2, column 1
    with torch.no_grad():
        difference = (student_maps(backbone, changed)[1] - student_maps(backbone, image)[1]).abs().sum(1)[0]
    assert difference.shape == (4, 2) and difference[2, 1] > 0
    difference[2, 1] = 0
    assert difference.max() == 0


def test_last_stride_2_and_dynamic_sizes() -> None:
    assert maps_of(student_config("build_timm_backbone", "resnet18", 512, LAST_STRIDE=2))[2].shape[2:] == (8, 4)
    cfg = student_config("build_timm_backbone", "vit_tiny_patch16_224", 192, size=(64, 32))
    cfg.INPUT.SIZE_TEST = [96, 48]
    backbone = build_student(cfg).eval()
    with torch.no_grad():
        assert student_maps(backbone, torch.zeros(1, 3, 96, 48))[1].shape[2:] == (6, 3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "build_resnett_backbone"}, "Nearest: build_resnet_backbone"),
        ({"depth": "51x"}, "build_resnet_backbone has no MODEL.BACKBONE.DEPTH '51x'"),
        ({"feat_dim": 2048}, "is 512 wide.*Set MODEL.BACKBONE.FEAT_DIM 512"),
        ({"name": "build_timm_backbone", "depth": "resnt18"}, "Nearest: resnet"),
        ({"name": "build_timm_backbone", "depth": "resnet18.nobody"}, "Known: resnet18.a1_in1k"),
        ({"name": "build_timm_backbone", "depth": "resnet18", "LAST_STRIDE": 3}, "LAST_STRIDE must be 1 or 2"),
        ({"name": "build_mobilenetv2_last_stride_backbone", "depth": "1.0x", "LAST_STRIDE": 3}, "must be 1 or 2"),
        ({"name": "build_timm_backbone", "depth": "coat_tiny"}, "gives no feature map"),
    ],
)
def test_wrong_settings_are_named(change: dict, message: str) -> None:
    settings = {"name": "build_resnet_backbone", "depth": "18x", "feat_dim": 512, **change}
    with pytest.raises(ClearError, match=message):
        build_student(student_config(**settings, size=(64, 32)))


def test_the_large_student_has_the_width_and_size_of_its_config() -> None:
    """304 million weights take no memory on the meta device."""
    for path in ("CLIP3D/students/timm_eva02_large.yml", "Baselines/synthcc_eva02_large.yml"):
        cfg = load_config(path)
        with torch.device("meta"):
            network = timm.create_model(cfg.MODEL.BACKBONE.DEPTH, num_classes=0, img_size=tuple(cfg.INPUT.SIZE_TRAIN))
        tokens = network.forward_features(torch.zeros(1, 3, 256, 128, device="meta"))
        assert tokens.shape == (1, 1 + 18 * 9, cfg.MODEL.BACKBONE.FEAT_DIM)
        assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(304e6, rel=0.01)
        published = timm.get_pretrained_cfg(cfg.MODEL.BACKBONE.DEPTH)
        for ours, theirs in ((cfg.MODEL.PIXEL_MEAN, published.mean), (cfg.MODEL.PIXEL_STD, published.std)):
            assert ours == pytest.approx([255 * value for value in theirs], abs=1e-3)
        assert (cfg.MODEL.META_ARCHITECTURE == "Baseline") == path.startswith("Baselines")
