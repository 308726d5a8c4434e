"""Pretrained weights of a student are complete, or the error says which file, from where, and which key names it."""

from __future__ import annotations

import pytest
import timm
import torch
from fastreid.modeling.backbones import build_backbone

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones import build_student
from tests.modeling.backbones.test_students import student_config

RESNET = ("build_resnet_backbone", "18x", 512)


def test_timm_weights_from_a_file_with_another_image_size(tmp_path) -> None:
    """Position embeddings of a square image are resized, everything else is taken as it is; the classifier is left."""
    pretrained = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=7)
    path = tmp_path / "vit.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in pretrained.state_dict().items()}}, path)
    cfg = student_config(
        "build_timm_backbone", "vit_tiny_patch16_224", 192, size=(64, 32), PRETRAIN=True, PRETRAIN_PATH=str(path)
    )
    loaded = build_student(cfg).model.state_dict()
    resized = {name for name, value in loaded.items() if not torch.equal(value, pretrained.state_dict()[name])}
    assert resized == {"pos_embed"}
    assert pretrained.pos_embed.shape == (1, 17, 192) and loaded["pos_embed"].shape == (1, 9, 192)
    torch.testing.assert_close(loaded["pos_embed"][:, 0], pretrained.pos_embed[:, 0])  # the class token's own place


def test_eva02_weights_from_a_file(tmp_path) -> None:
    pretrained = timm.create_model("eva02_tiny_patch14_224", num_classes=7)
    torch.save(pretrained.state_dict(), tmp_path / "eva.pth")
    cfg = student_config(
        "build_timm_backbone",
        "eva02_tiny_patch14_224",
        192,
        size=(112, 56),
        PRETRAIN=True,
        PRETRAIN_PATH=str(tmp_path / "eva.pth"),
    )
    loaded = build_student(cfg).model
    assert torch.equal(loaded.blocks[3].attn.qkv.weight, pretrained.blocks[3].attn.qkv.weight)
    assert loaded.pos_embed.shape == (1, 33, 192) and pretrained.pos_embed.shape == (1, 257, 192)


def test_fastreid_weights_from_a_file(tmp_path) -> None:
    source = build_backbone(student_config(*RESNET))
    torch.save(source.state_dict(), tmp_path / "resnet.pth")
    student = build_student(student_config(*RESNET, PRETRAIN=True, PRETRAIN_PATH=str(tmp_path / "resnet.pth")))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in student.state_dict().items())


def test_untrained_non_local_blocks_are_no_error(tmp_path) -> None:
    torch.save(build_backbone(student_config("build_resnet_backbone", "50x", 2048)).state_dict(), tmp_path / "r50.pth")
    cfg = student_config(
        "build_resnet_backbone",
        "50x",
        2048,
        (64, 32),
        WITH_NL=True,
        PRETRAIN=True,
        PRETRAIN_PATH=str(tmp_path / "r50.pth"),
    )
    assert any(name.startswith("NL_") for name in build_student(cfg).state_dict())


@pytest.mark.parametrize("name, depth, feat_dim", [RESNET, ("build_timm_backbone", "resnet18", 512)])
def test_weights_that_are_not_finite_are_named(name: str, depth: str, feat_dim: int, tmp_path) -> None:
    weights = build_student(student_config(name, depth, feat_dim)).state_dict()
    weights = {key.removeprefix("model."): value for key, value in weights.items()}
    weights["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(weights, tmp_path / "broken.pth")
    cfg = student_config(name, depth, feat_dim, PRETRAIN=True, PRETRAIN_PATH=str(tmp_path / "broken.pth"))
    with pytest.raises(ClearError, match=r"broken.pth .*PRETRAIN_PATH.* 1 tensors .*not finite.*layer1.0.conv1.weight"):
        build_student(cfg)


@pytest.mark.parametrize(
    "student, message",
    [
        (RESNET, r"absent.pth: no such file \(MODEL.BACKBONE.PRETRAIN_PATH\).*resnet18-5c106cde.pth"),
        (("build_timm_backbone", "resnet18", 512), "absent.pth: no such file.*huggingface.co/timm"),
        (("build_vit_backbone", "base", 768), "absent.pth: no such file.*jx_vit_base_p16_224"),
        (("build_mobilenetv2_last_stride_backbone", "1.0x", 1280), "absent.pth: no such.*export_mobilenetv2_weights"),
        (("build_resnest_backbone", "50x", 2048), "absent.pth: no such file.*resnest50-"),
    ],
)
def test_a_missing_file_is_named_with_its_source(student, message: str, tmp_path) -> None:
    with pytest.raises(ClearError, match=message):
        build_student(student_config(*student, PRETRAIN=True, PRETRAIN_PATH=str(tmp_path / "absent.pth")))


@pytest.mark.parametrize("name, depth, feat_dim", [RESNET, ("build_timm_backbone", "resnet18", 512)])
def test_weights_of_another_network_do_not_pass(name: str, depth: str, feat_dim: int, tmp_path) -> None:
    weights = build_backbone(student_config(*RESNET)).state_dict()
    partial = {key: value for key, value in weights.items() if not key.startswith("layer4")}
    torch.save(partial, tmp_path / "partial.pth")
    cfg = student_config(name, depth, feat_dim, PRETRAIN=True, PRETRAIN_PATH=str(tmp_path / "partial.pth"))
    with pytest.raises(ClearError, match=r"partial.pth.*lacks \d+ of the .* tensors of .*layer4.*half-pretrained"):
        build_student(cfg)
    torch.save({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "partial.pth")
    with pytest.raises(ClearError, match="cannot be loaded .*PRETRAIN_PATH"):
        build_student(cfg)


@pytest.mark.parametrize(
    "student, downloader, message",
    [
        (RESNET, "gdown.download", "resnet18-5c106cde.pth.*MODEL.BACKBONE.PRETRAIN_PATH"),
        (("build_osnet_backbone", "x0_25", 128), "gdown.download", "osnet.*MODEL.BACKBONE.PRETRAIN_PATH"),
        (("build_timm_backbone", "resnet18", 512), "timm.models._builder.load_state_dict_from_hf", "huggingface.co"),
        (("build_repvgg_backbone", "A0", 1280), "gdown.download", "RepVGG.*MODEL.BACKBONE.PRETRAIN_PATH"),
        (("build_resnet_backbone", "50x", 2048), "gdown.download", "fast-reid knows no address"),
    ],
)
def test_no_network_is_a_message_and_not_a_traceback(student, downloader, message, tmp_path, monkeypatch) -> None:
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(downloader, no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cfg = student_config(*student, PRETRAIN=True)
    if student[1] == "50x":
        cfg.MODEL.BACKBONE.WITH_SE = True  # fast-reid has no such weights
    with pytest.raises(ClearError, match=message):
        build_student(cfg)
