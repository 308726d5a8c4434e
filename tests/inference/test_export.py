"""Exported students give PyTorch's features for any batch, say what they are, and are refused when they do not."""

from __future__ import annotations

import json
import os

import pytest
import torch

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference import export as exporting
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.inference.export import (
    export,
    format_of,
    load_onnx,
    load_torch_export,
    load_torchscript,
    read_metadata,
)
from tests.conftest import REPOSITORY
from tests.inference.conftest import write_run
from tests.standins import small_config


def main(words: list[str]) -> int:
    return run_verb(["export", *words])


@pytest.fixture(scope="module")
def onnx_file(run, folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "new folder" / "student.onnx"
    assert main(["--model", str(run), "--output", str(path), "--images", str(folder)]) == 0
    return path


def check_features(runner, model) -> None:
    for count in (1, 5):
        batch = torch.randint(0, 256, (count, 3, 64, 32), dtype=torch.uint8)
        given = batch.float()
        features = runner(given)
        assert torch.equal(given, batch.float())  # its input is left as it was
        assert features.shape == (count, 48)
        torch.testing.assert_close(features, model(batch), atol=1e-5, rtol=0)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(count))


def test_onnx(onnx_file, model) -> None:
    check_features(load_onnx(onnx_file), model)
    assert [path.name for path in onnx_file.parent.iterdir()] == ["student.onnx"]


@pytest.mark.parametrize("name, load", [("student.pt", load_torchscript), ("student.pt2", load_torch_export)])
def test_formats_of_torch(model, tmp_path, name, load) -> None:
    exported = export(model, tmp_path / name)
    assert exported.difference < 1e-5 and exported.num_real == 6
    check_features(load(tmp_path / name), model)
    assert read_metadata(tmp_path / name)["fingerprint"] == model.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_metadata(onnx_file, model) -> None:
    described = read_metadata(onnx_file)
    assert (described["size"], described["channels"], described["feature_dim"]) == ([64, 32], "RGB", 48)
    assert described["input"] == "float32 [B, 3, height, width], 0..255"
    assert (described["backbone"], described["meta_architecture"]) == ("build_resnet_backbone 18x", "CLIP3DReID")


def test_an_onnx_file_loads_like_its_run(onnx_file, model, folder) -> None:
    loaded = load_model(str(onnx_file), "cpu")
    assert (loaded.size, loaded.feature_dim, loaded.fingerprint) == (model.size, 48, model.fingerprint)
    assert loaded.backbone_name == model.backbone_name
    paths = sorted(folder.iterdir())
    torch.testing.assert_close(loaded(paths), model(paths), atol=1e-5, rtol=0)
    assert loaded([]).shape == (0, 48)
    assert loaded.compare(paths[0], paths[0]).similarity == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(loaded.preprocess(paths), model.preprocess(paths), atol=0, rtol=0)


def test_a_file_that_gives_other_features_is_not_kept(model, tmp_path, monkeypatch) -> None:
    path = tmp_path / "student.pt"
    path.write_text("an older file")

    def forward(student, images):
        features = student.network(images.clone())
        return torch.nn.functional.normalize(features + 0.1 * features.flip(1))

    monkeypatch.setattr(exporting.ExportedStudent, "forward", forward)
    with pytest.raises(ClearError, match="differ from PyTorch's by .* in cosine"):
        export(model, path)
    assert path.read_text() == "an older file" and [item.name for item in tmp_path.iterdir()] == ["student.pt"]


def test_a_file_of_one_batch_size_is_not_kept(model, tmp_path, monkeypatch) -> None:
    def forward(student, images):
        return torch.nn.functional.normalize(student.network(images.clone())).reshape(int(images.shape[0]), -1)

    monkeypatch.setattr(exporting.ExportedStudent, "forward", forward)
    with pytest.raises(ClearError, match="torchscript: features have another shape than PyTorch's"):
        export(model, tmp_path / "student.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "config, depth, width",
    [
        ("shufflenetv2", "1.0x", 1024),  # writes its batch size down when traced, without help
        ("timm_eva02", "eva02_tiny_patch14_224", 192),
    ],
)
def test_students_that_are_hard_to_trace(config, depth, width, tmp_path) -> None:
    cfg = load_config(str(REPOSITORY / f"configs/CLIP3D/students/{config}.yml"))
    own = small_config()
    own.MODEL.BACKBONE = cfg.MODEL.BACKBONE
    own.MODEL.BACKBONE.PRETRAIN, own.MODEL.BACKBONE.DEPTH, own.MODEL.BACKBONE.FEAT_DIM = False, depth, width
    write_run(tmp_path / "run", own)
    assert export(load_model(tmp_path / "run", "cpu"), tmp_path / "student.onnx").difference < 1e-5


def test_wrong_files_and_formats_are_named(onnx_file, run, tmp_path) -> None:
    with pytest.raises(ClearError, match="no format has this ending"):
        format_of("student.bin")
    with pytest.raises(ClearError, match="must end in .onnx"):
        format_of("student.bin", "onnx")
    assert format_of("student.bin", "torchscript") == "torchscript"
    with pytest.raises(ClearError, match="is an exported student"):
        main(["--model", str(onnx_file), "--output", str(tmp_path / "x.onnx")])
    with pytest.raises(ClearError, match="gone.onnx: no such file"):
        load_model(tmp_path / "gone.onnx")
    (tmp_path / "cut.onnx").write_bytes(onnx_file.read_bytes()[:5000])
    with pytest.raises(ClearError, match="cut.onnx cannot be read as an ONNX network"):
        load_model(tmp_path / "cut.onnx")
    import onnx

    damaged = onnx.load(str(onnx_file))
    damaged.metadata_props[0].value = '{"format": 1}'
    onnx.save(damaged, str(tmp_path / "damaged.onnx"))
    with pytest.raises(ClearError, match="does not say which student it holds"):
        load_model(tmp_path / "damaged.onnx")


@pytest.mark.parametrize("words", [["x.onnx"], ["x.pt"], ["x.pt2"], ["x.onnx", "--precision", "float16"]])
def test_a_name_that_is_not_utf8_is_refused(run, tmp_path, words) -> None:
    """torch.export ends the whole process there, the others give long messages of their own."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9_") + words[0]
    with pytest.raises(ClearError, match=r"caf\\xe9_x.*: models cannot be written under a name that is not UTF-8"):
        main(["--model", str(run), "--output", path, *words[1:]])
    with pytest.raises(ClearError, match="not UTF-8"):
        run_verb(["push", str(run), "me/model", "--local", path])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (None, "metadata lacks 'channels'"),  # no json at all
        ({"fingerprint": "../../../elsewhere"}, r"is damaged: fingerprint '../../../elsewhere'"),
        ({"resize": ["64", "32"]}, r"is damaged: resize \['64', '32'\]"),
        ({"resize": [-1, 32]}, r"is damaged: resize \[-1, 32\]"),
        ({"resize": [], "crop": []}, r"is damaged: resize \[\], crop \[\] and interpolation"),
        ({"interpolation": 5}, "and interpolation 5"),
        ({"resize": [128, 64]}, r"takes `images` of \[128, 64\] pixels, and its network takes `images` of \[64, 32\]"),
        ({"feature_dim": 7}, r"says that it gives 7 numbers per image, and its network gives \[1, 48\]"),
    ],
)
def test_metadata_that_no_export_wrote_are_refused(onnx_file, tmp_path, changes, message) -> None:
    """A file from elsewhere may hold anything; its fingerprint would name a folder."""
    import onnx

    written = onnx.load(str(onnx_file))
    entry = written.metadata_props[0]
    entry.value = "no json" if changes is None else json.dumps({**json.loads(entry.value), **changes})
    onnx.save(written, str(tmp_path / "odd.onnx"))
    with pytest.raises(ClearError, match=f"odd.onnx .*{message}.*Export it again"):
        load_model(tmp_path / "odd.onnx", "cpu")


MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@pytest.mark.parametrize(
    "name, load", [("s.onnx", load_onnx), ("s.pt", load_torchscript), ("s.pt2", load_torch_export)]
)
def test_normalised_input_gives_the_same_features(run, model, tmp_path, name, load) -> None:
    """A tracker that normalises crops by ImageNet's statistics gets PyTorch's features of the raw crops."""
    assert main(["--model", str(run), "--output", str(tmp_path / name), "--input", "normalised"]) == 0
    batch = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8)
    features = load(tmp_path / name)((batch / 255 - MEAN) / STD)
    torch.testing.assert_close(features, model(batch), atol=1e-5, rtol=0)
    assert not torch.allclose(load(tmp_path / name)(batch.float()), model(batch), atol=1e-2)
    described = read_metadata(tmp_path / name)
    assert described["pixels"] == "normalised" and described["mean"] == [0.485, 0.456, 0.406]
    assert torch.equal(model(batch), load_model(run, "cpu")(batch))  # the model itself keeps its normalisation


@pytest.mark.parametrize("name", ["student.onnx", "student.ts"])
def test_a_student_that_crops_gives_the_same_features(tmp_path, folder, name) -> None:
    cfg = small_config()
    cfg.INPUT.SIZE_TEST, cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE = [96, 48], True, [64, 32]
    write_run(tmp_path / "run", cfg)
    model = load_model(tmp_path / "run", "cpu")
    export(model, tmp_path / name)
    loaded, paths = load_model(tmp_path / name, "cpu", allow_imports=True), sorted(folder.iterdir())
    torch.testing.assert_close(loaded(paths), model(paths), atol=1e-5, rtol=0)


def test_a_torchscript_file_with_damaged_metadata_is_named(model, tmp_path) -> None:
    export(model, tmp_path / "student.ts")
    module = torch.jit.load(str(tmp_path / "student.ts"))
    for text in ("no json", '{"pixels": "raw", "resize": [64, 0], "crop": []}'):
        torch.jit.save(module, str(tmp_path / "odd.ts"), _extra_files={"fastreid_clip3d.json": text})
        with pytest.raises(ClearError, match=r"odd.ts: fastreid_clip3d.json in it is damaged \(.*\). Export it again"):
            load_model(tmp_path / "odd.ts", "cpu", allow_imports=True)


def test_a_student_with_other_statistics_takes_imagenets(tmp_path) -> None:
    cfg = small_config()
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [127.5, 120.0, 110.0], [127.5, 60.0, 80.0]
    write_run(tmp_path / "run", cfg)
    model = load_model(tmp_path / "run", "cpu")
    export(model, tmp_path / "student.pt", pixels="normalised")
    batch = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
    features = load_torchscript(tmp_path / "student.pt")((batch / 255 - MEAN) / STD)
    torch.testing.assert_close(features, model(batch), atol=1e-5, rtol=0)


def test_our_loader_normalises_for_such_a_file(run, model, folder, tmp_path) -> None:
    assert main(["--model", str(run), "--output", str(tmp_path / "s.onnx"), "--input", "normalised"]) == 0
    loaded = load_model(tmp_path / "s.onnx", "cpu")
    paths = sorted(folder.iterdir())
    torch.testing.assert_close(loaded(paths), model(paths), atol=1e-5, rtol=0)


def test_pixels_of_another_range_are_named(onnx_file, model, caplog) -> None:
    normalised = torch.linspace(-2.1, 2.6, 3 * 64 * 32).reshape(1, 3, 64, 32)
    for student in (load_model(onnx_file, "cpu"), model):
        with pytest.raises(ClearError, match=r"float32 from -2.1 to 2.6; the model takes uint8, 0 to 255"):
            student.encode(normalised)
        caplog.clear()
        student(torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8))
        assert not caplog.records
        student((torch.rand(2, 3, 64, 32)).round().to(torch.uint8))
        assert "All pixels of 2 images are 0 or 1" in caplog.text


def test_a_file_of_before_the_flag_takes_raw_pixels(onnx_file, model, tmp_path) -> None:
    import onnx

    older = onnx.load(str(onnx_file))
    described = json.loads(older.metadata_props[0].value)
    for key in ("pixels", "mean", "std"):
        del described[key]
    older.metadata_props[0].value = json.dumps(described)
    onnx.save(older, str(tmp_path / "older.onnx"))
    batch = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
    torch.testing.assert_close(load_model(tmp_path / "older.onnx", "cpu")(batch), model(batch), atol=1e-5, rtol=0)
    older.metadata_props[0].value = json.dumps({**described, "pixels": "0..1"})
    onnx.save(older, str(tmp_path / "other.onnx"))
    with pytest.raises(ClearError, match=r"takes '0..1' pixels; only raw and normalised are known"):
        load_model(tmp_path / "other.onnx", "cpu")
