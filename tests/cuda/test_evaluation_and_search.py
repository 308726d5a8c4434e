"""Scores, features, search and exported files on a device equal the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.export.passes import move_to_device_pass

from fastreid_clip3d.config_loading import inference_config, load_config
from fastreid_clip3d.engine.run import evaluate as evaluate_model
from fastreid_clip3d.evaluation.protocols import CC, GENERAL, SC
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate
from fastreid_clip3d.inference import load_model
from tests.cuda.precision import PRECISIONS, computing_in, relative_difference
from tests.engine.tiny_run import CONFIG, options
from tests.inference.conftest import write_run
from tests.standins import small_config, tiny_teacher_folder

LOSSES = ("CrossEntropyLoss", "OTLoss", "GlobalDistillLoss")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with random weights."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder / "run", small_config(tiny_teacher_folder(folder / "teacher"), LOSSES))
    return folder / "run"


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("ties", [False, True], ids=["", "ties"])
def test_scores(ties: bool, metric: str, device: str) -> None:
    generator = np.random.default_rng(0)

    def labelled(count: int, camera: int) -> LabelledFeatures:
        features = torch.randn(count, 32, generator=torch.Generator().manual_seed(camera))
        if ties:  # copies, and values of which many are equal
            features = (features * 2).round()
            features[count // 2 :] = features[: count - count // 2]
        pids, camids, clothes = (generator.integers(0, high, count) for high in (20, 3, 4))
        return LabelledFeatures(features, pids, camids + camera, clothes)

    query, gallery = labelled(60, 0), labelled(300, 1)
    protocols = [GENERAL, CC, SC]
    expected, found = (evaluate(query, gallery, protocols, metric, device=where) for where in ("cpu", device))
    for name, result in expected.items():
        assert result.valid_queries > 0
        assert found[name].mean_average_precision == pytest.approx(result.mean_average_precision, abs=1e-6)
        assert found[name].mean_inverse_negative_penalty == pytest.approx(
            result.mean_inverse_negative_penalty, abs=1e-6
        )
        for rank in (1, 5, 10):
            assert found[name].rank(rank) == pytest.approx(result.rank(rank), abs=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize(
    "keys",
    [{}, {"TEST__FLIP__ENABLED": "True"}, {"TEST__AQE__ENABLED": "True"}, {"TEST__RERANK__ENABLED": "True"}],
    ids=["plain", "flip", "AQE", "re-ranking"],
)
def test_a_whole_evaluation(keys: dict[str, str], run: Path, datasets_folder: Path, tmp_path: Path) -> None:
    if keys and "FLIP" not in " ".join(keys):
        pytest.importorskip("faiss")
    results = []
    for where in ("cpu", "cuda"):
        words = options(datasets_folder, tmp_path / where, MODEL__DEVICE=where, **keys)
        words += ["MODEL.WEIGHTS", str(run / "model_final.pth"), "MODEL.HEADS.MLP.HIDDEN_DIM", "64"]
        words += ["MODEL.HEADS.MLP.OUT_DIM", "48"]
        results.append(evaluate_model(inference_config(load_config(CONFIG, words))))
    for key in ("mAP", "Rank-1", "mINP"):
        # the features themselves differ by rounding, which can swap two neighbours of this tiny gallery
        assert results[1][key] == pytest.approx(results[0][key], abs=1.0), key


def test_features(run: Path, device: str) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 80, 40, 3), dtype=np.uint8))
    with computing_in(PRECISIONS["float32"], device):
        expected, found = (load_model(run, where)(pictures) for where in ("cpu", device))
    assert relative_difference(found, expected) < 1e-3


def test_extraction_and_search(run: Path, device: str, tmp_path: Path) -> None:
    from fastreid_clip3d import cli

    gallery = tmp_path / "gallery"
    gallery.mkdir()
    generator = np.random.default_rng(1)
    for number in range(6):
        Image.fromarray(generator.integers(0, 256, (64, 32, 3), dtype=np.uint8)).save(gallery / f"{number}.png")
    features = {}
    for where in {"cpu", device}:
        file = tmp_path / f"{where}.npz"
        with computing_in(PRECISIONS["float32"], device):
            cli.run_verb(["extract", str(gallery), "--model", str(run), "--output", str(file), "--device", where])
        with np.load(file) as stored:
            features[where] = torch.from_numpy(stored["features"])
    assert relative_difference(features[device], features["cpu"]) < 1e-3
    pytest.importorskip("faiss")
    from fastreid_clip3d.inference.search.run import search

    found = search(str(run), str(gallery), query=[str(gallery / "3.png")], top=5, device=device)
    cosines = features["cpu"] @ features["cpu"][3]
    (answer,) = found.answers
    best = int(np.argmax([cosines[number] if number != 3 else -2 for number in range(6)]))
    assert Path(answer.hits[0].name).name == f"{best}.png"


@pytest.mark.parametrize("ending", ["onnx", "pt", "pt2"])
def test_exported_files(ending: str, run: Path, device: str, tmp_path: Path) -> None:
    """Written on the CPU, run on the device: ONNX through the CUDA provider where onnxruntime has it."""
    from fastreid_clip3d.inference.export import export
    from fastreid_clip3d.inference.model import load_torch_model

    if ending == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
        if device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("onnxruntime has no CUDAExecutionProvider here")
    student = load_torch_model(run, "cpu")
    path = tmp_path / f"student.{ending}"
    export(student, path)
    images = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8)
    expected = student.encode(images)
    if ending == "onnx":
        found = load_model(path, device).encode(images)
    else:
        with torch.no_grad(), computing_in(PRECISIONS["float32"], device):
            found = loaded(path, device)(images.to(device).float())
    # TorchScript keeps the permission for TF32 of the day of its export
    assert relative_difference(found, expected) < (1e-2 if ending == "pt" else 1e-3)


def loaded(path: Path, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A TorchScript or torch.export file on the device."""
    if path.suffix == ".pt":
        return torch.jit.load(str(path), map_location=device)
    return move_to_device_pass(torch.export.load(str(path)), device).module()
