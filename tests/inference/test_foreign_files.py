"""ONNX and TorchScript files of other tools: torch's own vectors, settings from flags and yaml, wrong ones named."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference import load_model
from tests.inference.conftest import picture

SIZE = (64, 32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KNOWN = {"mean": MEAN, "std": STD, "channels": "RGB", "range": 1}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=0).eval()


def write_onnx(network: nn.Module, path: Path, batch: int | None = None, any_size: bool = False, names=("y",)) -> Path:
    axes = {} if batch else {"x": {0: "b"}, **{name: {0: "b"} for name in names}}
    if any_size:
        axes["x"] |= {2: "h", 3: "w"}
    torch.onnx.export(
        network, (torch.rand(batch or 2, 3, *SIZE),), str(path), dynamo=False, input_names=["x"],
        output_names=list(names), dynamic_axes=axes,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory) -> Path:
    """net.onnx of any batch size, four.onnx of four images, any.onnx of any image size, net.ts and net.pt."""
    place = tmp_path_factory.mktemp("foreign")
    write_onnx(network, place / "net.onnx")
    write_onnx(network, place / "four.onnx", batch=4)
    write_onnx(network, place / "any.onnx", any_size=True)
    traced = torch.jit.trace(network, torch.rand(2, 3, *SIZE))
    for name in ("net.ts", "net.pt"):
        traced.save(str(place / name))
    return place


@pytest.fixture
def no_yaml(folder):
    yield folder
    for file in folder.glob("*.yaml"):
        file.unlink()


def pictures(count: int = 6) -> list[np.ndarray]:
    return [np.asarray(picture(seed)) for seed in range(count)]


@torch.no_grad()
def expected(network: nn.Module, mean=MEAN, std=STD, divisor: float = 255, bgr: bool = False) -> torch.Tensor:
    """The vectors of the six pictures by torch alone."""
    rows = [np.asarray(picture(seed).resize((32, 64), 3)).transpose(2, 0, 1) for seed in range(6)]
    images = torch.from_numpy(np.stack(rows)).float()
    images = images[:, [2, 1, 0]] if bgr else images
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return F.normalize(network((images / divisor - mean) / std))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("net.onnx", {}),
        ("four.onnx", {}),  # six pictures: a whole batch and half a one
        ("any.onnx", {"size": SIZE}),
        ("net.ts", {"size": SIZE, "allow_imports": True}),
        ("torchscript:net.pt", {"size": SIZE, "allow_imports": True}),
        ("net.pt", {"size": SIZE, "allow_imports": True, "format": "torchscript"}),
    ],
)
def test_features_are_those_of_torch(network, folder, name, options) -> None:
    source = f"torchscript:{folder / name[12:]}" if name.startswith("torchscript:") else folder / name
    model = load_model(source, "cpu", **KNOWN, **options)
    assert (model.size, model.feature_dim) == (SIZE, 512)
    found = model(pictures())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected(network), atol=1e-5, rtol=0)
    assert model([]).shape == (0, 512)


def test_channels_range_mean_and_std_are_applied(network, folder) -> None:
    settings = {"mean": (103.0, 116.0, 123.0), "std": (57.0, 57.0, 58.0), "channels": "BGR", "range": 255}
    model = load_model(folder / "net.onnx", "cpu", **settings)
    reference = expected(network, settings["mean"], settings["std"], divisor=1, bgr=True)
    torch.testing.assert_close(model(pictures()), reference, atol=1e-5, rtol=0)
    bgr_pictures = [one[:, :, ::-1] for one in pictures()]  # the order of the pictures is another matter
    torch.testing.assert_close(model(bgr_pictures, channels="BGR"), reference, atol=1e-5, rtol=0)
    assert model.fingerprint != load_model(folder / "net.onnx", "cpu", **KNOWN).fingerprint


def test_the_fingerprint_follows_weights_in_another_file(network, tmp_path) -> None:
    import onnx

    written = onnx.load(str(write_onnx(network, tmp_path / "whole.onnx")))
    onnx.save(written, str(tmp_path / "net.onnx"), save_as_external_data=True, location="weights.bin")
    first = load_model(tmp_path / "net.onnx", "cpu", **KNOWN)
    assert first.fingerprint == load_model(tmp_path / "net.onnx", "cpu", **KNOWN).fingerprint
    content = np.fromfile(tmp_path / "weights.bin", dtype=np.float32)
    content[::2] *= 1.5
    content.tofile(tmp_path / "weights.bin")
    changed = load_model(tmp_path / "net.onnx", "cpu", **KNOWN)
    assert not torch.allclose(changed(pictures()), first(pictures()), atol=1e-4)
    assert changed.fingerprint != first.fingerprint


def test_what_is_assumed_is_said(folder, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        load_model(folder / "net.onnx", "cpu", channels="RGB")
    assert "neither you nor net.yaml give mean, std, range; we assume mean 0.485 0.456 0.406" in caplog.text
    caplog.clear()
    load_model(folder / "net.onnx", "cpu", **KNOWN)
    assert not caplog.text


def test_the_yaml_file_beside_it_is_written_and_read_and_flags_win(network, no_yaml, caplog, capsys) -> None:
    flags = ["--range", "255", "--mean", "103", "116", "123", "--std", "57", "57", "58", "--channels", "BGR"]
    assert run_verb(["check-model", "--model", str(no_yaml / "any.onnx"), "--size", "64", "32", *flags,
                     "--save-settings"]) == 0  # fmt: skip
    assert "feature_dim   512" in capsys.readouterr().out
    assert yaml.safe_load((no_yaml / "any.yaml").read_text()) == {
        "size": [64, 32], "mean": [103.0, 116.0, 123.0], "std": [57.0, 57.0, 58.0], "channels": "BGR", "range": 255,
    }  # fmt: skip
    remembered = load_model(no_yaml / "any.onnx", "cpu")
    reference = expected(network, (103.0, 116.0, 123.0), (57.0, 57.0, 58.0), divisor=1, bgr=True)
    torch.testing.assert_close(remembered(pictures()), reference, atol=1e-5, rtol=0)
    torch.testing.assert_close(load_model(no_yaml / "any.onnx", "cpu", **KNOWN)(pictures()), expected(network),
                               atol=1e-5, rtol=0)  # fmt: skip
    assert load_model(no_yaml / "any.onnx", "cpu", size=(96, 48)).size == (96, 48)
    assert not caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must hold the settings of net.onnx"),
        ("sizes: [64, 32]", "unknown key 'sizes'. Did you mean size"),
        ("size: [64, 32.5]", "two whole numbers above 0"),
        ("size: [64, 0]", "two whole numbers above 0"),
        ("mean: 0.5", "mean is 0.5; it must be three numbers"),
        ("mean: [a, b, c]", "three numbers"),
        ("std: [0.2, 0.0, 0.2]", "three numbers above 0"),
        ("channels: GBR", "must be RGB or BGR"),
        ("range: 100", "must be 1 or 255"),
        ("range: true", "must be 1 or 255"),
        ("mean: [.nan, 0, 0]", "three numbers"),
        ("{", "cannot be read as the settings"),
    ],
)
def test_a_wrong_yaml_file_is_named(no_yaml, text, message) -> None:
    (no_yaml / "net.yaml").write_text(text)
    with pytest.raises(ClearError, match=message) as caught:
        load_model(no_yaml / "net.onnx", "cpu")
    assert "net.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("any.onnx", {}, "does not say which size .* --size HEIGHT WIDTH"),
        ("net.onnx", {"size": (128, 32)}, "takes images 64 x 32; the height 128 is wrong"),
        ("net.onnx", {"size": (64, 48)}, "the width 48 is wrong"),
        ("net.onnx", {"mean": (123.0, 116.0, 103.0)}, "belong to pixels in 0..255, and range is 1"),
        ("net.onnx", {"range": 255}, "belong to pixels in 0..1, and range is 255"),
        ("net.onnx", {"range": 255, "mean": (0.0, 0.0, 0.0)}, "std .0.229, .* belongs to pixels in 0..1"),  # assumed
        ("net.onnx", {"channels": "GBR"}, "must be RGB or BGR"),
        ("net.onnx", {"config": "config.yaml"}, "takes no --config"),
        ("net.ts", {}, "a TorchScript file is a program"),
        ("net.pt", {"format": "torchscript"}, "a TorchScript file is a program"),
        ("net.pt", {}, "is TorchScript, not a checkpoint. Write torchscript:"),
        ("net.ts", {"allow_imports": True}, "does not say which size"),
        ("gone.ts", {"allow_imports": True}, "gone.ts: no such file"),
    ],
)
def test_wrong_settings_are_named(folder, name, options, message) -> None:
    with pytest.raises(ClearError, match=message):
        load_model(folder / name, "cpu", **options)


def test_allow_imports_behind_a_command_allows_torchscript(folder, capsys) -> None:
    words = ["check-model", "--model", str(folder / "net.ts"), "--size", "64", "32"]
    with pytest.raises(ClearError, match="--allow-imports"):
        run_verb(words)
    assert run_verb([*words, "--allow-imports"]) == 0
    assert "net.ts (TorchScript)" in capsys.readouterr().out
    with pytest.raises(ClearError, match="--allow-imports"):  # the permission ends with its command
        run_verb(words)


class Broken(nn.Module):
    """A network with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault, self.norm = fault, nn.BatchNorm1d(48)

    def forward(self, images: torch.Tensor):
        vectors = F.adaptive_avg_pool2d(images, 4).flatten(1)
        return {
            "constant": lambda: vectors * 0 + 1,
            "nan": lambda: vectors / (vectors * 0),
            "map": lambda: images[:, :, ::2, ::2],
            "classes": lambda: vectors.sum(1, keepdim=True),
            "two": lambda: (vectors, vectors * 2),
            "batch": lambda: vectors - vectors.mean(0),
        }[self.fault]()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("constant", "the same vector for two different pictures"),
        ("nan", "not finite for ordinary pictures"),
        ("map", r"gives \[2, 3, 32, 16\] for 2 images|gives \[1, 3, 32, 16\] for 1 images"),
        ("classes", r"gives \[\d, 1\]"),
        ("two", r"\[\d, 48\], \[\d, 48\]"),
        ("batch", "depends on the other pictures of its batch"),
    ],
)
def test_a_network_that_gives_no_features_is_refused(tmp_path, fault, message) -> None:
    names = ("y", "z") if fault == "two" else ("y",)
    path = write_onnx(Broken(fault), tmp_path / "broken.onnx", names=names)
    with pytest.raises(ClearError, match=message) as caught:
        load_model(path, "cpu", **KNOWN)
    assert "broken.onnx" in str(caught.value)


def test_pooled_maps_and_half_precision_are_vectors(network, tmp_path) -> None:
    class Pooled(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return F.adaptive_avg_pool2d(images.repeat(1, 2, 1, 1), 1)

    model = load_model(write_onnx(Pooled(), tmp_path / "pooled.onnx"), "cpu", **KNOWN)
    assert model(pictures()).shape == (6, 6)
    half = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.Flatten()).half(), torch.rand(2, 3, *SIZE).half())
    half.save(str(tmp_path / "half.ts"))
    found = load_model(tmp_path / "half.ts", "cpu", True, size=SIZE, **KNOWN)(pictures())
    assert found.dtype == torch.float32 and torch.isfinite(found).all()


def test_a_network_of_other_inputs_is_refused(tmp_path) -> None:
    class Grey(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)

    torch.onnx.export(Grey(), (torch.rand(2, 1, 8, 4),), str(tmp_path / "grey.onnx"), dynamo=False)
    with pytest.raises(ClearError, match=r"it must take one float tensor \[B, 3, height, width\]"):
        load_model(tmp_path / "grey.onnx", "cpu", **KNOWN)
