"""Exported ONNX files of 16 or 8 bits: onnxruntime's converters, and how much the features and scores lose by them.

float16 halves the file; onnxruntime's CUDA and TensorRT providers run it fast, its CPU provider does not. int8 quarters
it: convolutions and matrix products between quantising and dequantising nodes (QDQ), symmetric, weights per channel,
with activation ranges from calibration pictures. TensorRT and OpenVINO read this form, too. Inputs and outputs stay
float32.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastreid_clip3d.common.files import check_writable, replacing
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.ranking import evaluate
from fastreid_clip3d.inference.dataset_features import dataset_features
from fastreid_clip3d.inference.encoder import NetworkModel, ReIDModel
from fastreid_clip3d.inference.export import (
    as_input,
    check_name,
    describe,
    drawn_pictures,
    export,
    format_of,
    real_pictures,
)
from fastreid_clip3d.inference.onnx_model import METADATA_KEY, OnnxModel, description_of, open_session
from fastreid_clip3d.inference.pictures import list_images
from fastreid_clip3d.inference.preprocess import InputPixels
from fastreid_clip3d.inference.search.calibration_run import choose_protocols

Precision = Literal["float32", "float16", "int8"]
REDUCED: tuple[str, ...] = get_args(Precision)[1:]
MOST_CALIBRATION_PICTURES = 256
_QUANTISED = ["Conv", "MatMul", "Gemm"]
_KEPT_IN_FLOAT32 = ["ReduceL2", "Div", "Pow"]
"""The L2 normalisation, so that features keep the length 1 within 0.001, and GeM's power, which exceeds 65504."""


@dataclass(frozen=True)
class Loss:
    """What a file of fewer bits loses against the float32 student.

    Args:
        mean, worst: 1 - cosine of its features, over `pictures` pictures that did not calibrate it.
        scores: by protocol, mAP in percent of the student and of the file; {} without a dataset.
    """

    mean: float
    worst: float
    pictures: int
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def percent(self) -> float:
        """The largest loss of mAP in points, or without a dataset the mean loss of cosine in percent."""
        return max((before - after for before, after in self.scores.values()), default=100 * self.mean)

    def __str__(self) -> str:
        text = f"cosine to float32: mean {1 - self.mean:.5f}, lowest {1 - self.worst:.5f} ({self.pictures} pictures)"
        return text + "".join(
            f"; mAP {name} {before:.2f} -> {after:.2f} ({after - before:+.2f})"
            for name, (before, after) in self.scores.items()
        )


@dataclass(frozen=True)
class ScoredSet:
    """A dataset whose mAP is compared: its name or CSV file, the datasets' folder ("": FASTREID_DATASETS)."""

    data: str
    root: str = ""
    batch_size: int = 64


def export_reduced(
    model: NetworkModel,
    path: str | Path,
    precision: Precision,
    *,
    calibration: Sequence[Tensor] = (),
    pictures: Sequence[Tensor] = (),
    pixels: InputPixels = "raw",
    test_set: ScoredSet | None = None,
    max_loss: float = 1.0,
) -> Loss:
    """Writes an ONNX file of fewer bits, measures its loss, and keeps it if the loss is at most `max_loss`.

    Args:
        model: a student on the CPU. path: ends in .onnx. precision: float16 or int8.
        calibration: for int8, pictures like those that the file will see: uint8 [3, h, w] each.
        pictures: to compare features on, not among the calibration's; (): drawn ones.
        pixels: what the file takes. test_set: to compare mAP on. max_loss: percent, see ``Loss.percent``.

    Raises:
        ClearError: as :func:`export.export`; no calibration pictures; too large a loss. Nothing is written then.
    """
    path = check_name(check_writable(path))
    if precision not in REDUCED or format_of(path) != "onnx":
        raise ClearError(f"{path}: --precision {precision} is for .onnx files; known: {', '.join(REDUCED)}.")
    if precision == "int8" and not calibration:
        raise ClearError("--precision int8 needs --calibration FOLDER, pictures like those that the file will see.")
    if not max_loss >= 0:
        raise ClearError(f"--max-loss {max_loss} must be 0 or more.")
    with replacing(path, keep_ending=True) as temporary, TemporaryDirectory() as folder:
        whole = Path(folder) / "float32.onnx"
        export(model, whole, "onnx", list(pictures) or None, pixels)
        try:
            if precision == "float16":
                _to_float16(whole, temporary)
            else:
                _to_int8(whole, temporary, [as_input(picture[None], pixels) for picture in calibration])
            _describe_again(temporary, {**describe(model, pixels), "precision": precision})
        except ImportError as error:
            raise ClearError(f"--precision needs the packages onnx and onnxruntime ({error}).") from error
        session = open_session(temporary, "cpu")
        reduced = OnnxModel(temporary, session, description_of(session))
        loss = measure_loss(model, reduced, torch.stack(list(pictures)) if pictures else None, test_set)
        if not loss.percent <= max_loss:
            raise ClearError(
                f"{precision} loses {loss.percent:.2f} %, more than --max-loss {max_loss:g}: {loss}. {path} is not "
                "written. "
                + ("Give more and other --calibration pictures, or take float16." if precision == "int8" else "")
            )
    return loss


def calibration_pictures(model: NetworkModel, sources: list[str]) -> tuple[list[Tensor], list[Tensor]]:
    """Pictures for the calibration and, every fourth one, for the check: at most 256, spread evenly over the sources.

    Raises:
        ClearError: fewer than four pictures that can be read.
    """
    paths = [str(entry.frames[0]) for entry in list_images(sources)]
    named = f"--calibration {' '.join(sources)}"
    if len(paths) < 4:
        raise ClearError(f"{named}: {len(paths)} pictures; give at least 4, better 100.")
    count = min(len(paths), MOST_CALIBRATION_PICTURES)
    chosen = [paths[place * len(paths) // count] for place in range(count)]
    pictures = list(real_pictures(model, chosen, count, named))
    if len(pictures) < 4:
        raise ClearError(f"{named}: only {len(pictures)} of {count} pictures can be read; give at least 4, better 100.")
    return [own for place, own in enumerate(pictures) if place % 4], pictures[::4]


def measure_loss(
    model: NetworkModel, reduced: ReIDModel, pictures: Tensor | None = None, test_set: ScoredSet | None = None
) -> Loss:
    """The loss of a reduced file against its student.

    Args:
        pictures: uint8 [B, 3, h, w]; None: drawn ones.

    Raises:
        ClearError: features that are not finite.
    """
    shown = drawn_pictures(16, model.size) if pictures is None else pictures
    losses = 1 - torch.nn.functional.cosine_similarity(model(shown).double(), reduced(shown).double(), dim=1)
    scores: dict[str, tuple[float, float]] = {}
    if test_set is not None:
        both = [_scores(one, test_set) for one in (model, reduced)]
        scores = {name: (value, both[1][name]) for name, value in both[0].items()}
    return Loss(float(losses.mean()), float(losses.max()), len(shown), scores)


def _scores(model: ReIDModel, test_set: ScoredSet) -> dict[str, float]:
    """mAP in percent by protocol, of those with a match."""
    query, gallery, declared = dataset_features(model, test_set.data, test_set.batch_size, root=test_set.root)
    results = evaluate(query, gallery, choose_protocols(None, declared, query.clothes_ids is not None))
    values = {name: result.mean_average_precision for name, result in results.items()}
    found = {name: 100 * value for name, value in values.items() if value is not None}
    if not found:
        raise ClearError(f"--data {test_set.data}: no query has a match, so there is no mAP to compare.")
    return found


def _to_float16(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked = [*DEFAULT_OP_BLOCK_LIST, *_KEPT_IN_FLOAT32]
    onnx.save(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True, op_block_list=blocked), str(target))


def _to_int8(source: Path, target: Path, calibration: list[Tensor]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(calibration)

        def get_next(self) -> Any:
            image = next(self.images, None)
            return None if image is None else {"images": image.numpy()}

    prepared = source.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        Reader(),
        QuantFormat.QDQ,
        op_types_to_quantize=_QUANTISED,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )


def _describe_again(path: Path, described: dict[str, Any]) -> None:
    """Writes the metadata; the fingerprint is that of the converted file, whose features differ from the student's."""
    import onnx

    written = onnx.load(str(path))
    del written.metadata_props[:]
    described["fingerprint"] = hashlib.sha256(written.SerializeToString(deterministic=True)).hexdigest()[:32]
    entry = written.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(described)
    onnx.save(written, str(path))
