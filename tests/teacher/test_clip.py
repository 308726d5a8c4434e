from __future__ import annotations

import shutil
import time

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher import load_teacher, sources
from fastreid_clip3d.vocabulary import prompts

from .conftest import MODEL, PREPROCESS, write_model


def random_images(count: int, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_answers_are_the_bare_models(teacher, model_folder):
    bare = open_clip.create_model(f"local-dir:{model_folder}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{model_folder}")(prompts())
    images = random_images(4)
    mean, std = (torch.tensor(PREPROCESS[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        features, table = bare.encode_image((images / 255.0 - mean) / std), bare.encode_text(tokens)
    torch.testing.assert_close(teacher.encode_images(images), features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(teacher.phrase_table, table, atol=1e-5, rtol=1e-5)
    assert teacher.embed_dim == MODEL["embed_dim"] and teacher.phrase_table.shape == (32, 24)
    torch.testing.assert_close(teacher.encode_images(images.float()), teacher.encode_images(images))


def test_it_stays_frozen(teacher):
    weights = [parameter.clone() for parameter in teacher.parameters()]
    assert teacher.train() is teacher and teacher.train(True) is teacher and not teacher.training
    student = torch.nn.Sequential(torch.nn.Linear(2, 2))
    student.teacher = teacher
    student.train()
    assert not teacher.training
    assert not isinstance(teacher, torch.nn.Module)
    assert all(not name.startswith("teacher") for name in student.state_dict())
    assert sum(1 for _ in student.parameters()) == 2
    with torch.enable_grad():
        features = teacher.encode_images(random_images(2))
    assert not features.requires_grad and not teacher.phrase_table.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(old, new) for old, new in zip(weights, teacher.parameters()))


def test_its_inner_model_cannot_leave_eval_mode(teacher):
    wrapper = torch.nn.ModuleDict({"inner": teacher._model})
    wrapper.train()
    assert not teacher.training


def test_labels_together_are_labels_apart(teacher):
    features, scores, choices = teacher.label_images(random_images(6))
    assert features.shape == (6, 24) and scores.shape == (6, 32) and choices.shape == (6, 16)
    for row in range(6):
        single = teacher.label_images(random_images(6)[row : row + 1])
        torch.testing.assert_close(single[0][0], features[row], atol=1e-5, rtol=1e-5)


def test_the_fingerprint_knows_weights_and_preprocessing(teacher, model_folder, tmp_path):
    same = load_teacher(f"local-dir:{model_folder}").fingerprint
    assert same == teacher.fingerprint and same.digest() == teacher.fingerprint.digest()
    padded = load_teacher(f"local-dir:{model_folder}", resize="pad").fingerprint
    assert padded.weights == same.weights and padded.digest() != same.digest()
    other = load_teacher(f"local-dir:{write_model(tmp_path / 'other', seed=1)}").fingerprint
    assert other.weights != same.weights and other.preprocessing == same.preprocessing
    assert set(same.versions) == {"open_clip", "timm", "torch"} and same.prompts == prompts()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_weights_file_of_a_named_model(suffix, tmp_path, monkeypatch):
    torch.manual_seed(2)
    model = open_clip.model.CLIP(**MODEL)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": model.state_dict()}, path)
    else:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-16", MODEL)
    teacher = load_teacher("Tiny-16", str(path))
    assert teacher.image_size == (32, 32)
    assert teacher.image_transform.mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    with torch.no_grad():
        expected = model.eval().encode_text(open_clip.get_tokenizer("")(prompts())[:, :40])
    torch.testing.assert_close(teacher.phrase_table, expected, atol=1e-5, rtol=1e-5)


def test_the_activation_belongs_to_the_tag(monkeypatch, tmp_path, model_folder):
    """Weights trained with QuickGELU are run with it, though the model's plain name says otherwise."""
    weights = tmp_path / "open_clip_model.safetensors"
    shutil.copyfile(model_folder / "open_clip_model.safetensors", weights)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-16", MODEL)
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED, "Tiny-16", {"quick": {"file": str(weights), "quick_gelu": True}}
    )
    teacher = load_teacher("Tiny-16", "quick")
    assert any(isinstance(part, open_clip.transformer.QuickGELU) for part in teacher._model.modules())


def test_pickled_code_is_refused(tmp_path, monkeypatch):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "evil.pt"
    torch.save({"state_dict": Payload()}, path)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-16", MODEL)
    with pytest.raises(ClearError, match="evil.pt"):
        load_teacher("Tiny-16", str(path))
    assert not (tmp_path / "ran").exists()


def test_damaged_or_foreign_weights(tmp_path, model_folder):
    folder = tmp_path / "copy"
    shutil.copytree(model_folder, folder)
    weights = load_file(folder / "open_clip_model.safetensors")
    weights.pop("visual.proj")
    save_file(weights, folder / "open_clip_model.safetensors")
    with pytest.raises(ClearError, match="visual.proj"):
        load_teacher(f"local-dir:{folder}")
    (folder / "open_clip_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ClearError, match="cannot be loaded"):
        load_teacher(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("name", "pretrained", "expected"),
    [
        ("ViT-B32", "openai", "ViT-B-32"),
        ("embeded", "", "embedded"),
        ("ViT-B-32", "opnai", "openai"),
        ("ViT-B-32", "", "PRETRAINED"),
        ("ViT-B-32", "gone/weights.pt", "gone/weights.pt does not exist"),
        ("local-dir:gone", "", "'gone' does not exist"),
    ],
)
def test_what_cannot_be_loaded_is_named(name, pretrained, expected):
    with pytest.raises(ClearError) as caught:
        load_teacher(name, pretrained)
    assert expected in str(caught.value)


def test_an_unknown_precision():
    with pytest.raises(ClearError, match="amp, bf16, fp32"):
        load_teacher(precision="fp8")


@pytest.mark.parametrize(("name", "pretrained"), [("ViT-L-14", "openai"), ("hf-hub:someone/some-clip", "")])
def test_without_a_network_the_message_comes_soon_and_has_a_remedy(name, pretrained, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(ClearError) as caught:
        load_teacher(name, pretrained)
    assert time.monotonic() - started < sources._PROBE_SECONDS + 5
    for part in (name, "hub.invalid", "By hand", "local-dir:", "MODEL.TEACHER"):
        assert part in str(caught.value)
    if pretrained:
        assert "openai" in str(caught.value) and "openai=FILE" in str(caught.value)
    else:
        assert "PRETRAINED" not in str(caught.value)  # a name on the hub takes none


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:a/b/c", "hf-hub:own/some name"])
def test_a_name_that_the_hub_does_not_allow(name):
    with pytest.raises(ClearError, match=f"'{name}' does not name a repository .*hf-hub:OWNER/REPOSITORY"):
        load_teacher(name)


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_weights_in_the_hubs_cache_need_no_network(weights, model_folder, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repository = tmp_path / "models--own--some-clip"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    shutil.copy(model_folder / "open_clip_config.json", snapshot)
    state = load_file(model_folder / "open_clip_model.safetensors")
    save_file(state, snapshot / weights) if weights.endswith(".safetensors") else torch.save(state, snapshot / weights)
    found, expected = load_teacher("hf-hub:own/some-clip"), load_teacher(f"local-dir:{model_folder}")
    assert found.fingerprint.weights == expected.fingerprint.weights
