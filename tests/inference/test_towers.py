"""Image towers of timm and open_clip as ReID models: the libraries' own features, and nothing left random."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.inference.pictures import list_images
from fastreid_clip3d.teacher.clip import load_teacher
from tests.inference.conftest import picture
from tests.standins import tiny_teacher_folder

PICTURES = [picture(seed, 90 + seed, 40 + seed) for seed in range(4)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """File of a ResNet-18 of timm with a classifier of 7 classes, and the network."""
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=7).eval()
    path = tmp_path_factory.mktemp("weights") / "r18.safetensors"
    save_file(network.state_dict(), str(path))
    return path, network


def test_a_network_of_timm_gives_its_pooled_features(weights) -> None:
    path, network = weights
    model = load_model(f"timm:resnet18?weights={path}", "cpu")
    transform = create_transform(**resolve_model_data_config(network) | {"crop_mode": "squash", "crop_pct": 1.0})
    with torch.no_grad():
        maps = network.forward_features(torch.stack([transform(one) for one in PICTURES]))
    assert (model.size, model.feature_dim) == ((224, 224), 512)
    torch.testing.assert_close(model(PICTURES), F.normalize(maps.mean((2, 3))), atol=1e-5, rtol=0)
    smaller = load_model(f"timm:resnet18?weights={path}", "cpu", size=(96, 48))
    assert smaller.size == (96, 48) and smaller.fingerprint != model.fingerprint


def test_weights_that_do_not_fill_the_network_are_refused(weights, tmp_path) -> None:
    _, network = weights
    whole = dict(network.state_dict())
    for change, message in (
        ({"layer1.0.conv1.weight": None}, "the weights lack 1 of the network's: layer1.0.conv1.weight"),
        ({"layer9.weight": torch.ones(1)}, "have other tensors than 1 of the network's: layer9.weight"),
    ):
        changed = {name: value for name, value in {**whole, **change}.items() if value is not None}
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(ClearError, match=message):
            load_model(f"timm:resnet18?weights={tmp_path / 'changed.pth'}", "cpu")


def test_a_folder_that_timm_wrote_loads(weights, tmp_path) -> None:
    _, network = weights
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "resnet18", "num_classes": 7, "pretrained_cfg": {"num_classes": 7,
                    "input_size": [3, 64, 32], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
                    "interpolation": "bilinear", "classifier": "fc", "first_conv": "conv1"}})
    )  # fmt: skip
    save_file(network.state_dict(), str(tmp_path / "model.safetensors"))
    model = load_model(f"timm:local-dir:{tmp_path}", "cpu")
    squeezed = [np.asarray(one.resize((32, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1) for one in PICTURES]
    with torch.no_grad():
        maps = network.forward_features(torch.from_numpy(np.stack(squeezed)) / 127.5 - 1)
    torch.testing.assert_close(model(PICTURES), F.normalize(maps.mean((2, 3))), atol=1e-5, rtol=0)


@pytest.mark.parametrize("own_folder", [False, True])
def test_a_tower_of_open_clip_gives_its_image_embeddings(tmp_path, own_folder) -> None:
    name = tiny_teacher_folder(tmp_path / "clip") if own_folder else "embedded"
    model = load_model(f"open_clip:{name}", "cpu")
    teacher = load_teacher(name)
    expected = teacher.encode_images(torch.stack([teacher.preprocess(one) for one in PICTURES]))
    torch.testing.assert_close(model(PICTURES), F.normalize(expected), atol=1e-5, rtol=0)
    assert model.size == teacher.image_size


def test_open_clip_takes_a_weights_file_for_its_tag(tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    small = {"embed_dim": 24, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16,
             "patch_size": 16}, "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2,
             "layers": 1}}  # fmt: skip
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", small)
    reference = open_clip.create_model("tiny").eval()
    torch.save(reference.state_dict(), tmp_path / "tiny.pt")
    model = load_model(f"open_clip:tiny/{tmp_path / 'tiny.pt'}", "cpu")
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (open_clip.OPENAI_DATASET_MEAN,
                                                                  open_clip.OPENAI_DATASET_STD))  # fmt: skip
    with torch.no_grad():
        expected = reference.encode_image((pixels / 255 - mean) / std, normalize=True)
    torch.testing.assert_close(model(pixels), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("timm:resnet181", {}, "timm:resnet181: timm .* has no network of that name. Nearest: resnet18"),
        ("timm:resnet18.none", {}, "knows no weights of that tag"),
        ("timm:resnet18", {}, "cannot be reached|HF_HUB_OFFLINE is set.*timm:resnet18.weights=FILE"),
        ("timm:resnet18?weights=gone.pth", {}, "gone.pth.*no such weights file"),
        ("timm:local-dir:gone", {}, "timm:local-dir:gone: its weights cannot be loaded"),
        ("open_clip:ViT-B-32", {}, "give open_clip:NAME/TAG"),
        ("open_clip:ViT-B-33/openai", {}, "open_clip:ViT-B-33/openai: .*Nearest known: ViT-B-32"),
        ("open_clip:ViT-B-32/gone", {}, "neither a weights file nor a pretrained tag"),
        ("open_clip:embedded", {"size": (64, 32)}, "knows its own settings, and takes no --size"),
        ("timm:resnet18", {"range": 255}, "takes no --range"),
        ("timm:resnet18", {"config": "c.yaml"}, "takes no --config"),
    ],
)
def test_wrong_names_and_settings_are_named(source, options, message, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ClearError, match=message):
        load_model(source, "cpu", **options)


def test_verbs_take_a_tower(tmp_path, monkeypatch) -> None:
    """Search keeps an index per model; the exported tower has the tower's features."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gallery").mkdir()
    for number, one in enumerate(PICTURES):
        one.save(f"gallery/{number}.png")
    model = ["--model", "open_clip:embedded", "--device", "cpu"]
    assert run_verb(["search", *model, "--query", "gallery/2.png", "--gallery", "gallery", "--json", "found.json"]) == 0
    answers = json.loads((tmp_path / "found.json").read_text())["answers"]
    hits = answers[0]["hits"]
    features = load_model("open_clip:embedded", "cpu")(sorted((tmp_path / "gallery").glob("*.png")))
    order = (features @ features[2]).argsort(descending=True)[1:].tolist()
    assert [hit["name"] for hit in hits] == [f"gallery/{row}.png" for row in order]
    assert run_verb(["extract", "gallery", *model, "--output", "found.npz"]) == 0
    with np.load("found.npz") as content:
        paths = [entry.name for entry in list_images(["gallery"])]
        assert content["paths"].tolist() == paths
        np.testing.assert_allclose(content["features"], load_model("open_clip:embedded", "cpu")(paths), atol=1e-6)
    assert run_verb(["export", *model[:2], "--output", "tower.onnx"]) == 0
    exported, tower = load_model("tower.onnx", "cpu"), load_model("open_clip:embedded", "cpu")
    torch.testing.assert_close(exported(PICTURES), tower(PICTURES), atol=1e-5, rtol=0)
