"""One rule for weights: a network is filled by a file or refused, whatever form the file has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones.build import build_student
from fastreid_clip3d.modeling.weights import (
    find_checkpoint,
    fitting_weights,
    load_weights,
    named_tensors,
    read_file,
    read_weights,
    with_current_names,
)
from tests.standins import small_config

Weights = dict[str, Tensor]


class Head(nn.Module):
    def __init__(self, people: int) -> None:
        super().__init__()
        self.bottleneck = nn.Sequential(nn.BatchNorm1d(3))
        self.weight = nn.Parameter(torch.randn(people, 3))


class Student(nn.Module):
    """A backbone, a head and the layers of a loss, with the names that our networks have."""

    def __init__(self, people: int = 5, with_loss: bool = True) -> None:
        super().__init__()
        self.backbone, self.heads = nn.Linear(2, 3), Head(people)
        if with_loss:
            self.ot_loss = nn.Linear(3, 3)


FORMS: dict[str, Callable[[Weights], Any]] = {
    "bare": lambda weights: weights,
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3},
    "model": lambda weights: {"model": weights, "metric": np.float64(0.5)},
    "DataParallel": lambda weights: {"model": {f"module.{name}": value for name, value in weights.items()}},
    "a number beside": lambda weights: {**weights, "best": np.float64(0.5), "step": 7},
    "numpy arrays": lambda weights: {"model": {name: value.numpy() for name, value in weights.items()}},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_a_file_fills_the_network(form: Callable[[Weights], Any], tmp_path: Path) -> None:
    trained, network = Student(), Student()
    torch.save(form(dict(trained.state_dict())), tmp_path / "weights.pth")
    load_weights(network, tmp_path / "weights.pth", "resume")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in trained.state_dict().items())


def test_a_safetensors_file_fills_the_network(tmp_path: Path) -> None:
    trained, network = Student(), Student()
    save_file(dict(trained.state_dict()), str(tmp_path / "weights.safetensors"))
    load_weights(network, tmp_path / "weights.safetensors", "resume")
    assert torch.equal(network.backbone.weight, trained.backbone.weight)


def test_old_names_of_fastreid_are_understood() -> None:
    """Its releases before 1.3 had ``heads.bnneck`` and ``heads.classifier``."""
    trained = dict(Student().state_dict())
    old = {
        name.replace("bottleneck.0.", "bnneck.").replace("heads.weight", "heads.classifier.weight"): value
        for name, value in trained.items()
    }
    assert "heads.bnneck.weight" in old and "heads.classifier.weight" in old
    assert with_current_names(old, trained).keys() == trained.keys()
    network = Student()
    network.load_state_dict(fitting_weights(old, network, "resume", "old.pth", "it").weights)
    assert torch.equal(network.heads.weight, trained["heads.weight"])


def test_an_old_batch_norm_comes_after_the_reduction_where_there_is_one() -> None:
    expected = ["heads.bottleneck.0.weight", "heads.bottleneck.1.weight", "heads.bottleneck.1.bias"]
    old = {
        "heads.bottleneck.0.weight": torch.zeros(1),
        "heads.bnneck.weight": torch.ones(1),
        "heads.bnneck.bias": torch.ones(1),
    }
    assert set(with_current_names(old, expected)) == set(expected)


@pytest.mark.parametrize("purpose", ["inference", "start", "resume"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("backbone.bias"), r"f.pth lacks 1 of the \d+ tensors of it: backbone.bias"),
        (lambda weights: weights.pop("heads.bottleneck.0.running_var"), "lacks 1 .*running_var"),
        (
            lambda weights: weights.update({"backbone.weight": torch.ones(1)}),
            r"another shape.*\[1\], expected \[3, 2\]",
        ),
        (lambda weights: weights.update({"layer9.weight": torch.ones(1)}), "1 tensors more than it: layer9.weight"),
    ],
)
def test_half_filled_networks_are_refused_whatever_the_weights_are_for(
    change: Callable[[Weights], Any], message: str, purpose: Any
) -> None:
    weights = dict(Student().state_dict())
    change(weights)
    with pytest.raises(ClearError, match=message):
        fitting_weights(weights, Student(), purpose, "f.pth", "it")


def test_a_classifier_of_other_people_is_allowed_for_evaluation_and_a_start() -> None:
    weights = dict(Student(people=9).state_dict())
    network = Student(with_loss=False)
    fit = fitting_weights(weights, network, "inference", "f.pth", "it")
    assert fit.initial == ["heads.weight"] and "ot_loss.weight" not in fit.weights
    assert fitting_weights(weights, Student(), "start", "f.pth", "it").initial == ["heads.weight"]
    with pytest.raises(ClearError, match=r"heads.weight \[9, 3\], expected \[5, 3\]"):
        fitting_weights(weights, Student(), "resume", "f.pth", "it")


def test_layers_of_losses_may_start_untrained_at_a_start_only() -> None:
    weights = dict(Student(with_loss=False).state_dict())
    fit = fitting_weights(weights, Student(), "start", "f.pth", "it")
    assert fit.initial == ["ot_loss.weight", "ot_loss.bias"]
    with pytest.raises(ClearError, match="lacks 2 .*ot_loss.weight"):
        fitting_weights(weights, Student(), "resume", "f.pth", "it")


@pytest.mark.parametrize("purpose", ["inference", "start", "resume"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((3, 2), float("nan")), "backbone.weight has numbers that are not finite"),
        (torch.full((3, 2), float("inf")), "not finite"),
        (torch.ones(3, 2, dtype=torch.complex64), "backbone.weight holds complex64 numbers"),
        (torch.ones(3, 2, dtype=torch.int8), "holds int8 numbers"),
        (torch.ones(3, 2, dtype=torch.bool), "holds bool numbers"),
        (torch.ones(3, 2).to_sparse(), "is sparse or quantised"),
        (torch.empty(3, 2, device="meta"), "has a shape and no numbers"),
    ],
)
def test_tensors_that_are_no_numbers_are_refused(value: Tensor, message: str, purpose: Any, tmp_path: Path) -> None:
    weights = {**Student().state_dict(), "backbone.weight": value}
    torch.save(weights, tmp_path / "f.pth")
    with pytest.raises(ClearError, match=f"f.pth .* has 1 tensors without usable numbers: .*{message}"):
        load_weights(Student(), tmp_path / "f.pth", purpose)


@pytest.mark.filterwarnings("ignore:.*[Qq]uantiz.*")
def test_quantised_tensors_are_refused_and_half_precision_is_not() -> None:
    weights, network = dict(Student().state_dict()), Student()
    quantised = torch.quantize_per_tensor(torch.ones(3, 2), 0.1, 0, torch.qint8)
    with pytest.raises(ClearError, match="backbone.weight is sparse or quantised"):
        fitting_weights({**weights, "backbone.weight": quantised}, network, "start", "f.pth", "it")
    halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    assert fitting_weights(halves, network, "resume", "f.pth", "it").weights.keys() == weights.keys()


def test_a_counter_of_batches_is_not_needed() -> None:
    weights = dict(Student().state_dict())
    del weights["heads.bottleneck.0.num_batches_tracked"]
    assert not fitting_weights(weights, Student(), "resume", "f.pth", "it").initial


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x.pth \(MODEL.WEIGHTS\) cannot be read as weights: the file is empty"),
        (b"PK\x03\x04 cut off", "cannot be read as weights"),
        (b"some text", "cannot be read as weights"),
    ],
)
def test_files_that_are_no_weights_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ClearError, match=message) as caught:
        read_weights(tmp_path / "x.pth", "MODEL.WEIGHTS")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no weights: .* but a list"),
        ({}, "but nothing"),
        ({"epoch": 3, "model": {}}, "but the keys epoch, model"),
        (torch.ones(2), "but a Tensor"),
    ],
)
def test_content_without_named_tensors_is_described(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ClearError, match=message):
        named_tensors(read_file(tmp_path / "x.pth"), "x.pth")


def test_python_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"model": Path("x")}, tmp_path / "x.pth")
    with pytest.raises(ClearError, match="holds Python objects other than tensors, numbers and texts"):
        read_file(tmp_path / "x.pth")


def test_a_folder_and_last_checkpoint_mean_what_they_name(tmp_path: Path) -> None:
    with pytest.raises(ClearError, match="neither model_final.pth nor last_checkpoint"):
        find_checkpoint(tmp_path)
    (tmp_path / "model_0003.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_0003.pth\n")
    assert find_checkpoint(tmp_path) == find_checkpoint(tmp_path / "last_checkpoint") == tmp_path / "model_0003.pth"
    (tmp_path / "model_final.pth").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "model_final.pth"
    assert find_checkpoint(tmp_path / "model_0003.pth") == tmp_path / "model_0003.pth"
    with pytest.raises(ClearError, match="MODEL.WEIGHTS .*gone: no such file or folder"):
        find_checkpoint(tmp_path / "gone", "MODEL.WEIGHTS")
    with pytest.raises(ClearError, match="x: no such file or folder"):
        find_checkpoint("x" * 5000)
    with pytest.raises(ClearError, match="x: no such weights file"):
        read_file("x" * 5000)


@pytest.mark.parametrize("tag", [b"", b"gone.pth", b"\x00\xff\xfe\x80", b"\x7fELF" * 200])
def test_garbage_in_last_checkpoint_is_named(tag: bytes, tmp_path: Path) -> None:
    (tmp_path / "last_checkpoint").write_bytes(tag)
    (tmp_path / "model_0003.pth").touch()
    with pytest.raises(
        ClearError, match="last_checkpoint names .*Name one of its checkpoints: model_0003.pth"
    ) as caught:
        find_checkpoint(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("form", ["nested", "run"])
@pytest.mark.parametrize(
    ("name", "depth", "width"),
    [
        ("build_resnet_backbone", "18x", 512),
        ("build_timm_backbone", "resnet18", 512),
        ("build_shufflenetv2_backbone", "1.0x", 1024),
    ],
)
def test_pretrain_path_takes_every_form(name: str, depth: str, width: int, form: str, tmp_path: Path) -> None:
    cfg = small_config()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM = name, depth, width
    cfg.MODEL.BACKBONE.PRETRAIN = False
    wanted = build_student(cfg).state_dict()
    bare = {key.removeprefix("model."): value for key, value in wanted.items()}
    content = {
        "nested": {"state_dict": {f"module.{key}": value for key, value in bare.items()}, "best": np.float64(1)},
        "run": {"model": {f"backbone.{key}": value for key, value in wanted.items()} | {"heads.weight": torch.ones(2)}},
    }
    torch.save(content[form], tmp_path / "pretrained.pth")
    cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.BACKBONE.PRETRAIN_PATH = True, str(tmp_path / "pretrained.pth")
    found = build_student(cfg).state_dict()
    assert all(torch.equal(found[key], value) for key, value in wanted.items() if "num_batches" not in key)
