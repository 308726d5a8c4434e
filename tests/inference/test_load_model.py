"""Loading a run: the trainer's own features, from any kind of picture, and errors that name what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.data.transforms import build_transforms
from fastreid.evaluation import inference_on_dataset
from PIL import Image

from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.data.build import TestImages, build_test_loader
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation import calibration
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.modeling.backbones import student_maps
from fastreid_clip3d.teacher import guidance
from tests.conftest import REPOSITORY
from tests.inference.conftest import picture, write_run
from tests.standins import small_config


class Collector:
    """An evaluator that keeps what fast-reid's evaluation loop brings."""

    def __init__(self) -> None:
        self.features: list[torch.Tensor] = []

    def reset(self) -> None:
        self.features = []

    def process(self, inputs, outputs) -> None:
        self.features.append(outputs.clone())

    def evaluate(self) -> torch.Tensor:
        return torch.cat(self.features)


@pytest.mark.parametrize("channels_last", [False, True])
def test_features_are_those_of_the_trainers_evaluation(trained, model, folder, channels_last) -> None:
    _, network, cfg = trained
    cfg = cfg.clone()
    cfg.DATALOADER.NUM_WORKERS, cfg.TEST.IMS_PER_BATCH, cfg.MODEL.CHANNELS_LAST = 0, 5, channels_last
    paths = [str(path) for path in sorted(folder.iterdir())]
    test_set = TestImages([(path, 0, 0, 0) for path in paths], build_transforms(cfg, is_train=False))
    expected = inference_on_dataset(network, build_test_loader(cfg, test_set), Collector())
    expected = torch.nn.functional.normalize(expected)
    assert (expected @ expected.T).min() < 0.9  # the pictures do differ
    found = model(paths)
    assert found.shape == (12, 48) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_every_kind_of_input_gives_the_same_features(model, folder) -> None:
    paths = sorted(folder.iterdir())
    expected = model([str(path) for path in paths])
    pictures = [Image.open(path) for path in paths]
    arrays = [np.asarray(item) for item in pictures]
    assert torch.equal(model(paths), expected)
    assert torch.equal(model(tuple(pictures)), expected)
    assert torch.equal(model(arrays), expected)
    assert torch.equal(model([array[:, :, ::-1] for array in arrays], channels="BGR"), expected)
    assert torch.equal(model(path for path in paths), expected)
    tensor = torch.from_numpy(arrays[3].copy()).permute(2, 0, 1)
    for single in (str(paths[3]), paths[3], pictures[3], arrays[3], tensor):
        torch.testing.assert_close(model(single), expected[3:4], atol=2e-6, rtol=0)
    with pytest.raises(AssertionError):  # the wrong order is another picture
        torch.testing.assert_close(model(arrays, channels="BGR"), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(64, 32), (90, 50)])
def test_a_tensor_batch_is_rgb(model, size) -> None:
    pictures = [picture(seed, *size) for seed in range(70)]  # more than go through the student at once
    batch = torch.stack([torch.from_numpy(np.array(item)).permute(2, 0, 1) for item in pictures])
    expected = model(pictures)
    torch.testing.assert_close(model(batch), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(model(batch.flip(1), channels="BGR"), expected, atol=2e-6, rtol=0)


def test_grey_pictures_have_three_equal_channels(model) -> None:
    grey = np.asarray(picture(1).convert("L"))
    expected = model(np.repeat(grey[:, :, None], 3, axis=2))
    assert torch.equal(model(grey), expected)
    assert torch.equal(model(grey[:, :, None]), expected)
    assert torch.equal(model(Image.fromarray(grey)), expected)


def test_no_images_no_rows(model) -> None:
    for nothing in ([], (), torch.zeros(0, 3, 20, 10, dtype=torch.uint8), torch.zeros(0, 3, 64, 32, dtype=torch.uint8)):
        assert model(nothing).shape == (0, 48)


CROP = np.zeros((8, 4, 3), np.uint8)


@pytest.mark.parametrize(
    "images, channels, message",
    [
        ([CROP], "GBR", 'choose "RGB"'),
        ([CROP, CROP.astype(np.float32)], "RGB", "image 2 of 2 has float32 pixels; they must be uint8"),
        (torch.rand(2, 3, 8, 4), "RGB", "image 1 of 2 has float32 pixels"),
        (torch.zeros(2, 3, 8, 4, dtype=torch.bfloat16), "RGB", "bfloat16 pixels"),
        ([CROP, CROP, CROP[:, 2:2]], "BGR", r"image 3 of 3 has no area: its shape is \(8, 0, 3\)"),
        ([CROP] * 70 + [CROP[:0]], "RGB", r"image 71 of 71 has no area: its shape is \(0, 4, 3\)"),
        (np.zeros((8, 4, 4), np.uint8), "RGB", r"the image has shape \(8, 4, 4\).*alpha"),
        (torch.zeros(2, 8, 4, 3, dtype=torch.uint8), "RGB", r"tensor of shape \(8, 4, 3\); an image is \[3, H, W\]"),
        ([CROP, None], "RGB", "image 2 of 2 is a NoneType"),
        (7, "RGB", "got int"),
    ],
)
def test_what_is_no_picture_is_named(model, images, channels, message) -> None:
    with pytest.raises(ClearError, match=message):
        model(images, channels)


def test_a_missing_file_is_named(model, tmp_path) -> None:
    with pytest.raises(UnreadableImage, match="gone.jpg: no such image"):
        model(tmp_path / "gone.jpg")


def test_loading_draws_no_random_numbers_and_asks_no_teacher(run, monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("the teacher was asked for")

    monkeypatch.setattr("fastreid_clip3d.teacher.guidance.load_teacher", refuse)
    monkeypatch.setattr("fastreid_clip3d.modeling.meta_arch.own_losses.load_body_model", refuse)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    loaded = load_model(run / "model_final.pth", "cpu")
    assert torch.equal(before, torch.random.get_rng_state())
    assert loaded.network.ot_loss is None and loaded.network.guidance is None and not loaded.network.training
    assert (loaded.size, loaded.feature_dim, loaded.device.type) == ((64, 32), 48, "cpu")
    assert loaded.phrase_features.shape == (32, 512)


def test_phrase_features_are_psi_of_the_phrases(trained, model) -> None:
    torch.testing.assert_close(model.phrase_features, trained[1].expected_phrases)


def test_local_features_are_the_students_map(trained, model, folder) -> None:
    _, network, _ = trained
    batch = model.preprocess(sorted(folder.iterdir())[:3])
    with torch.no_grad():
        expected = student_maps(network.backbone, (batch - network.pixel_mean) / network.pixel_std).feature_map
    found = model.local_features(sorted(folder.iterdir())[:3])
    assert model.map_size == tuple(expected.shape[2:]) and found.shape == (3, expected[0, 0].numel(), 512)
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)


def change_checkpoint(run: Path, change) -> None:
    content = torch.load(run / "model_final.pth", weights_only=True)
    change(content["model"])
    torch.save(content, run / "model_final.pth")


def test_a_checkpoint_of_before_the_phrases_says_that_the_teacher_is_needed(own_run) -> None:
    change_checkpoint(own_run, lambda weights: weights.pop("phrase_table"))
    guidance._guidance.cache_clear()
    guidance._loaded_teacher.cache_clear()
    loaded = load_model(own_run, "cpu")
    with pytest.raises(ClearError, match="too old to hold its phrases"):
        loaded.phrase_features


def test_a_plain_baseline_has_no_phrases(tmp_path) -> None:
    cfg = small_config()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.HEADS.NAME = "Baseline", "EmbeddingHead"
    write_run(tmp_path / "plain", cfg)
    loaded = load_model(tmp_path / "plain", "cpu")
    assert loaded.feature_dim == 512 and loaded.phrase_features is None


def test_the_fingerprint_follows_what_features_depend_on(own_run, model) -> None:
    def fingerprint() -> str:
        return load_model(own_run, "cpu").fingerprint

    assert fingerprint() == model.fingerprint
    change_checkpoint(own_run, lambda weights: weights["heads.weight"].add_(1))  # the classifier
    assert fingerprint() == model.fingerprint
    config = (own_run / "config.yaml").read_text()
    cfg = load_config(str(own_run / "config.yaml"))
    cfg.INPUT.SIZE_TEST = [96, 32]
    (own_run / "config.yaml").write_text(cfg.dump())
    assert fingerprint() != model.fingerprint
    (own_run / "config.yaml").write_text(config)
    change_checkpoint(own_run, lambda weights: weights["heads.bottleneck.0.running_var"].mul_(1.5))
    assert fingerprint() != model.fingerprint


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda weights: weights.pop("backbone.conv1.weight"), "lacks 1 of the .* tensors .*: backbone.conv1.weight"),
        (lambda weights: weights.pop("heads.bottleneck.0.running_var"), "lacks 1 .*heads.bottleneck.0.running_var"),
        (lambda weights: weights.update({"backbone.layer9.weight": torch.ones(1)}), "1 tensors more.*backbone.layer9"),
        (lambda weights: weights.update({"backbone.conv1.weight": torch.ones(1)}), r"another shape.*conv1.weight"),
        (lambda weights: weights["heads.bottleneck.0.running_mean"].fill_(torch.nan), "not finite"),
        (lambda weights: weights.clear(), "holds no weights"),
    ],
)
def test_weights_that_do_not_fit_are_named(own_run, change, message) -> None:
    change_checkpoint(own_run, change)
    with pytest.raises(ClearError, match=message) as caught:
        load_model(own_run, "cpu")
    assert "own_run" in str(caught.value)


def test_the_classifier_is_not_needed(own_run, model, folder) -> None:
    change_checkpoint(own_run, lambda weights: [weights.pop(name) for name in ("heads.weight", "phrase_table")])
    assert torch.equal(load_model(own_run, "cpu")(sorted(folder.iterdir())), model(sorted(folder.iterdir())))


def test_folders_that_are_no_runs_are_named(own_run, tmp_path) -> None:
    checkpoint = own_run / "model_final.pth"
    with pytest.raises(ClearError, match="nowhere: no such run folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ClearError, match="it must be cpu, cuda"):
        load_model(own_run, "gpu7")
    checkpoint.rename(own_run / "model_0001.pth")
    with pytest.raises(ClearError, match="last_checkpoint names model_final.pth"):
        load_model(own_run)
    (own_run / "last_checkpoint").write_text("model_0001.pth")
    assert load_model(own_run, "cpu").feature_dim == 48
    (own_run / "last_checkpoint").unlink()
    with pytest.raises(ClearError, match="Name one of its checkpoints: model_0001.pth"):
        load_model(own_run)
    shutil.copy(own_run / "model_0001.pth", checkpoint)
    with open(checkpoint, "r+b") as file:
        file.truncate(checkpoint.stat().st_size // 2)
    with pytest.raises(ClearError, match="model_final.pth cannot be read"):
        load_model(own_run)
    checkpoint.write_bytes(b"")
    with pytest.raises(ClearError, match="model_final.pth cannot be read"):
        load_model(own_run)
    (own_run / "config.yaml").unlink()
    with pytest.raises(ClearError, match="config.yaml is missing"):
        load_model(own_run / "model_0001.pth")


def test_a_damaged_archive_and_a_fifo_are_named(own_run) -> None:
    content = bytearray((own_run / "model_final.pth").read_bytes())
    content[content.rfind(b"PK\1\2")] = 0  # the last entry of the archive's directory
    (own_run / "damaged.pth").write_bytes(content)
    with pytest.raises(ClearError, match="damaged.pth cannot be read as weights"):
        load_model(own_run / "damaged.pth", "cpu")
    os.mkfifo(own_run / "fifo.pth")
    signal.alarm(20)  # ends a test that hangs
    try:
        with pytest.raises(ClearError, match="fifo.pth: no such weights file"):
            load_model(own_run / "fifo.pth", "cpu")
    finally:
        signal.alarm(0)


def test_comparing_two_pictures(own_run, monkeypatch, folder) -> None:
    loaded = load_model(own_run, "cpu")
    first, second = sorted(folder.iterdir())[:2]
    features = loaded([first, second])
    alone = loaded.compare(first, np.asarray(Image.open(second))[:, :, ::-1], channels="BGR")
    assert alone.similarity == pytest.approx(float(features[0] @ features[1]), abs=2e-6) and alone.same_person is None
    rates = calibration.ProtocolRates(
        (-1.0, 0.999), (1.0, 0.01), (0.0, 0.2), 100, 100, 10, calibration.Recommended(0.999, 0.01, 0.2)
    )
    of_this_model = calibration.Calibration(loaded.fingerprint, "Data", 0.01, {"CC": rates})
    calibration.write_calibration(own_run, of_this_model)
    assert loaded.compare(first, first).same_person is True
    assert loaded.compare(first, second).same_person is False


def test_a_loaded_model_brings_neither_trainer_nor_teacher_nor_bodies(run: Path) -> None:
    """What only training needs is not imported, so that a service that compares pictures starts without it."""
    code = (
        "import json, sys\nfrom fastreid_clip3d import load_model\n"
        f"load_model({str(run)!r}, 'cpu')\nprint(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    imported = json.loads(done.stdout.splitlines()[-1])
    own = {name.split(".")[1] for name in imported if name.startswith("fastreid_clip3d.")}
    assert "inference" in own
    assert not own & {"engine", "teacher", "body", "synthcc", "visualization", "cli"}
    assert not {"open_clip", "pytorch3d"} & set(imported)
