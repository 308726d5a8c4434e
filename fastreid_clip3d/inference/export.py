"""A student as one file for deployment: ONNX, TorchScript or torch.export, checked against PyTorch before it is kept.

Every format takes float32 RGB images [B, 3, h, w] in 0..255, any B, and gives L2-normalised features [B, d'].
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor, nn

from fastreid_clip3d.common.files import check_writable, replacing
from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.compat.blocks import batch_size_left_open
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.model import TorchModel
from fastreid_clip3d.inference.onnx_model import METADATA_KEY, import_onnxruntime
from fastreid_clip3d.inference.pictures import list_images
from fastreid_clip3d.inference.preprocess import to_pixels

SUFFIXES = {"onnx": (".onnx",), "torchscript": (".pt", ".ts", ".torchscript"), "torch.export": (".pt2",)}
"""File name endings by which a format is known."""

LARGEST_DIFFERENCE = 1e-4
"""1 - cosine between an exported file's features and PyTorch's that is still taken for rounding."""

_OPSET = 17
_METADATA_FILE = f"{METADATA_KEY}.json"

Runner = Callable[[Tensor], Tensor]
"""float32 [B, 3, h, w] -> features [B, d']."""


class Exported(NamedTuple):
    """A file that was kept. `difference`: largest 1 - cosine to PyTorch over `num_random` and `num_real` images."""

    path: Path
    format: str
    difference: float
    num_random: int
    num_real: int


class NormalisedStudent(nn.Module):
    """The network with its pixel statistics before it and the L2 norm behind it; leaves its input as it is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.network(images.clone()).float())


def format_of(path: str | Path, chosen: str = "") -> str:
    """The named format, or the one that the file's ending tells.

    Raises:
        ClearError: neither tells one, or they contradict each other.
    """
    suffix = Path(path).suffix.lower()
    by_suffix = next((name for name, endings in SUFFIXES.items() if suffix in endings), "")
    known = ", ".join(f"{'/'.join(endings)} ({name})" for name, endings in SUFFIXES.items())
    if chosen and chosen not in SUFFIXES:
        raise ClearError(f"Format {chosen!r} is unknown; known: {', '.join(SUFFIXES)}.")
    if not chosen and not by_suffix:
        raise ClearError(f"{path}: the ending tells no format. Known: {known}.")
    if chosen == "onnx" and by_suffix != "onnx":
        raise ClearError(f"{path}: an ONNX file must end in .onnx, or it could not be loaded again.")
    return chosen or by_suffix


def describe(model: TorchModel) -> dict[str, Any]:
    """What the metadata says, under ``fastreid_clip3d``: input, output and which student this is."""
    return {
        "format": 1,
        "input": "float32 [B, 3, height, width], 0..255",
        "output": "float32 [B, feature_dim], L2-normalised",
        "channels": "RGB",
        "size": list(model.size),
        "resize": list(model.recipe.resize),
        "crop": list(model.recipe.crop),
        "interpolation": "bicubic, PIL",
        "feature_dim": model.feature_dim,
        "fingerprint": model.fingerprint,
        "backbone": model.backbone_name,
        "meta_architecture": model.cfg.MODEL.META_ARCHITECTURE,
        "metric": model.metric,
    }


def export(model: TorchModel, path: str | Path, format: str = "", pictures: list[Tensor] | None = None) -> Exported:
    """Writes the student, runs the file on random and on real images, and keeps it only if it does what PyTorch does.

    Args:
        model: a student on the CPU.
        path: the file; missing folders are made.
        format: ``onnx``, ``torchscript`` or ``torch.export``; "": by the file's ending.
        pictures: real images of the student's size, uint8 [3, h, w]; None: drawn ones.

    Raises:
        ClearError: a network that the format cannot hold, features that differ by more than 1e-4 in cosine (nothing is
            kept then, and a file that was there stays), a package that is missing, a place that cannot be written to.
    """
    path, format = check_writable(path), format_of(path, format)
    write, load = {
        "onnx": (_write_onnx, load_onnx),
        "torchscript": (_write_torchscript, load_torchscript),
        "torch.export": (_write_torch_export, load_torch_export),
    }[format]
    real = torch.stack(pictures) if pictures else drawn_pictures(6, model.size)
    with replacing(path, keep_ending=True) as temporary:
        student = NormalisedStudent(model.network).eval()
        example = drawn_pictures(2, model.size).float()
        try:
            with warnings.catch_warnings(), batch_size_left_open():
                warnings.simplefilter("ignore")  # tracers warn of every shape they write down; the check below decides
                write(student, example, temporary, json.dumps(describe(model)))
                runner = load(temporary)
            difference, num_random = _largest_difference(model, runner, real)
        except (ClearError, OSError):
            raise
        except Exception as error:  # exporters and runtimes each have their own
            reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
            raise ClearError(
                f"{model.backbone_name} cannot be exported as {format} ({type(error).__name__}: {reason}). Try another "
                f"--format: {', '.join(name for name in SUFFIXES if name != format)}."
            ) from error
        if not difference <= LARGEST_DIFFERENCE:
            how = f"differ from PyTorch's by {difference:.1e} in cosine, more than {LARGEST_DIFFERENCE:.0e}"
            if difference == float("inf"):
                how = "have another shape than PyTorch's, or are not finite"
            raise ClearError(f"{model.backbone_name} as {format}: features {how}. {path} is not written.")
    return Exported(path, format, difference, num_random, len(real))


def _largest_difference(model: TorchModel, runner: Runner, real: Tensor) -> tuple[float, int]:
    """1 - cosine at worst (infinite for another shape), and over how many random images besides `real`.

    Random pixels come in batches of 1 and 5, real pictures in batches of 4.
    """
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(0, 256, (6, 3, *model.size), dtype=torch.uint8, generator=generator)
    worst = 0.0
    for batch in (random[:1], random[1:], *real.split(4)):
        expected, found = model.encode(batch).double(), runner(batch.float().contiguous()).double()
        if found.shape != expected.shape or not torch.isfinite(found).all():
            return float("inf"), len(random)
        cosines = (expected * found).sum(1) / found.norm(dim=1).clamp_min(1e-12)
        lengths = (found.norm(dim=1) - 1).abs()
        worst = max(worst, float((1 - cosines).max()), float(lengths.max()))
    return worst, len(random)


def _write_onnx(student: nn.Module, example: Tensor, path: Path, metadata: str) -> None:
    try:
        import onnx
    except ImportError as error:
        raise ClearError("Writing ONNX files needs the package onnx: pip install onnx onnxruntime") from error
    import_onnxruntime()
    # The tracing exporter: for these networks several times faster than the one that builds on torch.export.
    torch.onnx.export(
        student,
        (example,),
        str(path),
        dynamo=False,
        opset_version=_OPSET,
        input_names=["images"],
        output_names=["features"],
        dynamic_axes={"images": {0: "batch"}, "features": {0: "batch"}},
    )
    written = onnx.load(str(path))
    onnx.checker.check_model(written)
    entry = written.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, metadata
    onnx.save(written, str(path))


def load_onnx(path: str | Path) -> Runner:
    """An exported ``.onnx`` on the CPU."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _write_torchscript(student: nn.Module, example: Tensor, path: Path, metadata: str) -> None:
    with torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(student, example, check_trace=False))
    torch.jit.save(traced, str(path), _extra_files={_METADATA_FILE: metadata})


def load_torchscript(path: str | Path) -> Runner:
    """An exported TorchScript file on the CPU."""
    return _without_gradients(torch.jit.load(str(path), map_location="cpu"))


def _write_torch_export(student: nn.Module, example: Tensor, path: Path, metadata: str) -> None:
    batch = {"images": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(student, (example,), dynamic_shapes=batch)
    torch.export.save(program, str(path), extra_files={_METADATA_FILE: metadata})


def load_torch_export(path: str | Path) -> Runner:
    """An exported ``.pt2`` on the CPU."""
    return _without_gradients(torch.export.load(str(path)).module())


def _without_gradients(module: Any) -> Runner:
    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images)

    return run


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What :func:`describe` wrote into an exported file of any format."""
    if format_of(path) == "onnx":
        session = import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    extra = {_METADATA_FILE: ""}
    if format_of(path) == "torchscript":
        torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
    else:
        torch.export.load(str(path), extra_files=extra)
    return json.loads(extra[_METADATA_FILE])


def drawn_pictures(count: int, size: tuple[int, int]) -> Tensor:
    """Figures before a blurred ground, with the edges and plain areas random pixels lack: uint8 [count, 3, h, w]."""
    generator = np.random.default_rng(0)
    return torch.stack([torch.from_numpy(_drawn(generator, size)).permute(2, 0, 1) for _ in range(count)])


def _drawn(generator: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    coarse = generator.integers(0, 256, (4, 3, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    picture = picture.filter(ImageFilter.GaussianBlur(1))
    pen = ImageDraw.Draw(picture)
    skin, upper, lower = (tuple(int(value) for value in generator.integers(0, 256, 3)) for _ in range(3))
    middle, half = width * generator.uniform(0.4, 0.6), width * generator.uniform(0.15, 0.3)
    for shape, top, bottom, colour, part in (
        (pen.rectangle, 0.55, 0.95, lower, 0.7),
        (pen.rectangle, 0.22, 0.58, upper, 1.0),
        (pen.ellipse, 0.05, 0.22, skin, 0.5),
    ):
        shape((middle - half * part, height * top, middle + half * part, height * bottom), fill=colour)
    return np.array(picture)


def real_pictures(model: TorchModel, sources: list[str], most: int = 32) -> Iterator[Tensor]:
    """The first readable pictures of files, folders, globs and lists as the student's input, uint8 [3, h, w].

    Raises:
        ClearError: no source, or none of the pictures can be read.
    """
    found, fault = 0, "there is no image"
    for entry in list_images(sources):
        if found == most:
            return
        try:
            pixels = to_pixels(entry.frames[0], model.recipe)
        except UnreadableImage as error:
            fault = str(error)
            continue
        found += 1
        yield torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    if not found:
        raise ClearError(f"--images {' '.join(sources)}: {fault}")
