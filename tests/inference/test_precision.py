"""Exports of 16 and 8 bits: the numbers inside the file, the printed losses, and files that lose too much."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import GENERAL
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.inference.precision import Loss, calibration_pictures, export_reduced
from tests.inference.conftest import picture


def exported(run: Path, output: Path, *words: str) -> int:
    return run_verb(["export", "--model", str(run), "--output", str(output), *words])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Forty pictures of eight people, and a CSV file of them."""
    folder, lines = tmp_path / "people", ["path,pid,camid,clothes,split"]
    folder.mkdir()
    for number in range(40):
        person, camera = number // 5, number % 5
        pixels = np.asarray(picture(person, 64, 32)).astype(int)
        noise = np.random.default_rng(number).integers(-60, 60, pixels.shape)
        from_array(np.clip(pixels + noise, 0, 255)).save(folder / f"{person}_c{camera}.png")
        split = "query" if camera == 0 else "gallery"
        lines.append(f"{folder / f'{person}_c{camera}.png'},{person},{camera},{person},{split}")
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
    return folder


def from_array(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


def kinds(path: Path) -> tuple[dict[int, int], set[str]]:
    """Numbers of weights by their type in ONNX, and the operators."""
    import onnx

    graph = onnx.load(str(path)).graph
    numbers: dict[int, int] = {}
    for weight in graph.initializer:
        numbers[weight.data_type] = numbers.get(weight.data_type, 0) + int(np.prod(weight.dims))
    return numbers, {node.op_type for node in graph.node}


def test_float16_halves_the_file(run: Path, pictures: Path, tmp_path: Path, capsys) -> None:
    import onnx

    whole, half = tmp_path / "whole.onnx", tmp_path / "half.onnx"
    assert exported(run, whole) == 0 and exported(run, half, "--precision", "float16", "--images", str(pictures)) == 0
    printed = capsys.readouterr().out
    assert 0.45 < half.stat().st_size / whole.stat().st_size < 0.6
    numbers, _ = kinds(half)
    assert numbers[onnx.TensorProto.FLOAT16] > 0.99 * sum(numbers.values())
    graph = onnx.load(str(half)).graph
    makers = {name: node for node in graph.node for name in node.output}
    (length,) = (node for node in graph.node if node.op_type == "ReduceL2")
    cast = makers[length.input[0]]  # the L2 normalisation is in float32
    assert cast.op_type == "Cast" and cast.attribute[0].i == onnx.TensorProto.FLOAT
    model, loaded = load_model(run, "cpu"), load_model(half, "cpu")
    assert loaded.fingerprint != model.fingerprint and len(loaded.fingerprint) == 32
    paths = sorted(pictures.iterdir())[:32]
    cosines = torch.nn.functional.cosine_similarity(model(paths), loaded(paths))
    assert float(cosines.min()) > 0.999
    torch.testing.assert_close(loaded(paths).norm(dim=1), torch.ones(32), atol=1e-3, rtol=0)  # float16's rounding
    found = re.search(r"mean (0\.\d+|1\.0+), lowest (\S+) \(32 pictures\)", printed)
    assert [float(text) for text in found.groups()] == pytest.approx(
        [float(cosines.mean()), float(cosines.min())], abs=2e-5
    )


def test_int8_has_quantised_weights_and_its_scores_are_compared(
    run: Path, pictures: Path, tmp_path: Path, capsys
) -> None:
    import onnx

    path = tmp_path / "small.onnx"
    words = ["--precision", "int8", "--calibration", str(pictures), "--data", str(tmp_path / "people.csv")]
    assert exported(run, path, *words, "--max-loss", "100") == 0
    printed = capsys.readouterr().out
    numbers, operators = kinds(path)
    assert numbers[onnx.TensorProto.INT8] > 0.98 * sum(numbers.values()) and "QuantizeLinear" in operators
    stored = {value.name: onnx.numpy_helper.to_array(value) for value in onnx.load(str(path)).graph.initializer}
    zeros = [value for name, value in stored.items() if name.endswith("zero_point")]
    assert zeros and not any(value.any() for value in zeros)  # symmetric, as TensorRT takes it
    weights = [name for name in stored if name.endswith("_quantized") and stored[name].ndim == 4]
    scales = [stored[name.removesuffix("_quantized") + "_scale"].shape for name in weights]
    assert weights and scales == [stored[name].shape[:1] for name in weights]  # one scale per channel
    expected = []
    paths = sorted(pictures.iterdir())
    people, cameras = (np.array([int(path.stem.split("_c")[place]) for path in paths]) for place in (0, 1))
    for model in (load_model(run, "cpu"), load_model(path, "cpu")):
        features = model(paths)
        query, gallery = (
            LabelledFeatures(features[torch.from_numpy(side)], people[side], cameras[side])
            for side in (cameras == 0, cameras > 0)
        )
        expected.append(100 * evaluate(query, gallery, [GENERAL])["general"].mean_average_precision)
    before, after = map(float, re.search(r"mAP general (\S+) -> (\S+) ", printed).groups())
    assert [before, after] == pytest.approx(expected, abs=0.02) and "(10 pictures)" in printed


def test_a_file_that_loses_too_much_is_not_written(run: Path, pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_text("an older file")
    words = ["--precision", "int8", "--calibration", str(pictures), "--max-loss", "0"]
    with pytest.raises(ClearError, match=r"int8 loses \d\.\d+ %, more than --max-loss 0"):
        exported(run, path, *words)
    assert path.read_text() == "an older file"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["people", "people.csv", "small.onnx"]


def test_the_loss_is_that_of_the_worst_protocol() -> None:
    assert Loss(0.02, 0.5, 3).percent == pytest.approx(2)
    assert Loss(0.02, 0.5, 3, {"CC": (30.0, 29.5), "SC": (80.0, 78.0)}).percent == pytest.approx(2)
    assert Loss(0.02, 0.5, 3, {"CC": (30.0, 31.0)}).percent == pytest.approx(-1)


def test_checks_before_anything_is_written(run: Path, model, pictures: Path, tmp_path: Path) -> None:
    for words, fault in (
        (["small.pt", "--precision", "float16"], "is for .onnx files"),
        (["small.onnx", "--precision", "int8"], "needs --calibration"),
        (["small.onnx", "--precision", "float16", "--max-loss", "-1"], "must be 0 or more"),
        (["small.onnx", "--precision", "int8", "--calibration", str(pictures / "0_c0.png")], "1 pictures; give"),
    ):
        with pytest.raises(ClearError, match=fault):
            exported(run, tmp_path / words[0], *words[1:])
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(5):
        (broken / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(ClearError, match="^--calibration .*broken: .*png: cannot be read as an image"):
        calibration_pictures(model, [str(broken)])
    shutil.copy(pictures / "0_c0.png", broken / "whole.png")
    with pytest.raises(ClearError, match="^--calibration .*broken: only 1 of 6 pictures can be read"):
        calibration_pictures(model, [str(broken)])
    calibration, check = calibration_pictures(model, [str(pictures)])
    assert (len(calibration), len(check)) == (30, 10)
    with pytest.raises(ClearError, match="bfloat16"):
        export_reduced(model, tmp_path / "x.onnx", "bfloat16")
