"""Each open_clip model keeps its own habits: raw embeddings, pixel statistics, activation, precision, tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher import load_teacher, phrase_scores
from fastreid_clip3d.teacher.cache.fingerprint import fingerprint_changes

from .conftest import MODEL, PREPROCESS

COCA = {
    **MODEL,
    "text_cfg": {**MODEL["text_cfg"], "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {"context_length": 40, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    "custom_text": True,
}
COCA["vision_cfg"] = {**MODEL["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
IMAGES = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)


def test_a_coca_teacher_gives_raw_embeddings(tmp_path: Path) -> None:
    """open_clip's CoCa normalises unless it is asked not to; g and the phrase table are raw for every teacher."""
    torch.manual_seed(0)
    model = open_clip.CoCa(**{key: value for key, value in COCA.items() if key != "custom_text"}).eval()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": COCA, "preprocess_cfg": PREPROCESS}))
    teacher = load_teacher(f"local-dir:{tmp_path}")
    mean, std = (torch.tensor(PREPROCESS[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = model._encode_image((IMAGES / 255.0 - mean) / std, normalize=False)[0]
    torch.testing.assert_close(teacher.encode_images(IMAGES), expected, rtol=1e-4, atol=1e-5)
    for vectors in (teacher.encode_images(IMAGES), teacher.phrase_table):
        assert (vectors.norm(dim=-1) - 1).abs().min() > 1e-3


@pytest.fixture
def weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a model whose two tags were trained with other pixel statistics."""
    torch.manual_seed(2)
    path = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in open_clip.CLIP(**MODEL).state_dict().items()}, path)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-16", MODEL)
    tags = {
        "clip": {"file": str(path), "mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28), "interpolation": "bicubic"},
        "half": {
            "file": str(path),
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "interpolation": "bilinear",
            "quick_gelu": True,
        },
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-16", tags)
    return path


def test_a_weights_file_takes_the_settings_of_the_tag_that_is_named(weights_file: Path) -> None:
    teacher = load_teacher("Tiny-16", f"half={weights_file}")
    assert teacher.image_transform.mean == (0.5, 0.5, 0.5) and teacher.image_transform.interpolation == "bilinear"
    assert any(isinstance(part, open_clip.transformer.QuickGELU) for part in teacher._model.modules())
    assert load_teacher("Tiny-16", f"clip={weights_file}").image_transform.mean == pytest.approx((0.48, 0.46, 0.41))


def test_a_weights_file_whose_settings_are_not_known_is_refused(weights_file: Path) -> None:
    with pytest.raises(
        ClearError, match=r"clip: mean 0\.480.*half: mean 0\.500.*PRETRAINED TAG=.*clip=.*weights\.safetensors"
    ):
        load_teacher("Tiny-16", str(weights_file))
    with pytest.raises(ClearError, match="gone.pt does not exist"):
        load_teacher("Tiny-16", "half=gone.pt")


def test_a_weights_file_takes_what_all_tags_share(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = {tag: {"file": "", "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"} for tag in ("a", "b")}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-16", alike)
    assert load_teacher("Tiny-16", str(weights_file)).image_transform.mean == (0.5, 0.5, 0.5)


def test_a_missing_tokenizer_package_is_named(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr(open_clip, "get_tokenizer", refuse)
    with pytest.raises(ClearError, match="pip install transformers.*tokenizer.json"):
        load_teacher(f"local-dir:{model_folder}")


def test_the_callers_autocast_reaches_neither_teacher_nor_scores(teacher) -> None:
    features, scores, choices = teacher.label_images(IMAGES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = teacher.label_images(IMAGES)
        close = phrase_scores(features, teacher.phrase_table)
    for one, other in zip(again, (features, scores, choices)):
        assert one.dtype == other.dtype and torch.equal(one, other)
    assert close.dtype == torch.float32 and torch.equal(close, scores)


def test_a_cache_of_lower_precision_does_not_serve_float32(teacher, caplog: pytest.LogCaptureFixture) -> None:
    stored = {**teacher.fingerprint.as_dict(), "precision": "amp"}
    assert teacher.fingerprint.precision == "fp32"
    assert fingerprint_changes(stored, teacher.fingerprint) == [
        "other precision: the teacher computed in amp, asked for is fp32"
    ]
    del stored["precision"]  # a cache of before precision was recorded
    assert fingerprint_changes(stored, teacher.fingerprint) == []
