"""Writes a student as one file for deployment: ONNX, TorchScript or torch.export, checked against PyTorch.

Every file takes float32 RGB images [B, 3, h, w], any B, and gives L2-normalised features [B, d']. With raw input the
pixels are 0..255; with normalised input the caller has applied ImageNet's mean and standard deviation.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor, nn

from fastreid_clip3d.common.files import check_writable, replacing
from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.common.names import as_utf8, printable
from fastreid_clip3d.compat.blocks import batch_size_left_open
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import NetworkModel, ReIDModel
from fastreid_clip3d.inference.onnx_model import METADATA_KEY, import_onnxruntime, session_options
from fastreid_clip3d.inference.pictures import list_images
from fastreid_clip3d.inference.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    InputPixels,
    imagenet_normalised,
    to_pixels,
)

Format = Literal["onnx", "torchscript", "torch.export"]

SUFFIXES: dict[Format, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "torchscript": (".pt", ".ts", ".torchscript"),
    "torch.export": (".pt2",),
}
"""The endings of each format's files."""

LARGEST_DIFFERENCE = 1e-4
"""The largest 1 - cosine between an exported file's features and PyTorch's that we accept as rounding."""

_OPSET = 17
_METADATA_FILE = f"{METADATA_KEY}.json"

Runner = Callable[[Tensor], Tensor]
"""float32 [B, 3, h, w] -> features [B, d']."""


class Exported(NamedTuple):
    """A written file. `difference`: largest 1 - cosine to PyTorch over `num_random` and `num_real` images."""

    path: Path
    format: Format
    difference: float
    num_random: int
    num_real: int


class Description(TypedDict):
    """The metadata of an exported file, json under the key ``fastreid_clip3d``.

    ``pixels`` is "raw" or "normalised" (``InputPixels``), and ``input`` says the same in words. ``mean`` and ``std``
    are ImageNet's for normalised input, else empty. ``size``, ``resize`` and ``crop`` are pixels, height first.
    """

    format: int
    input: str
    pixels: InputPixels
    mean: list[float]
    std: list[float]
    output: str
    channels: str
    size: list[int]
    resize: list[int]
    crop: list[int]
    interpolation: str
    feature_dim: int
    fingerprint: str
    backbone: str
    meta_architecture: str
    metric: str


class ExportedStudent(nn.Module):
    """The network and the L2 norm behind it; forward leaves its input unchanged.

    Args:
        network: a meta-architecture, which normalises 0..255 by its own ``pixel_mean`` and ``pixel_std``.
        pixels: with "normalised" we copy the network without that step. Where its mean and std are not ImageNet's, the
            copy converts from ImageNet's to its own.
    """

    def __init__(self, network: Any, pixels: InputPixels = "raw") -> None:
        super().__init__()
        if pixels == "normalised":
            network = copy.deepcopy(network)
            mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
            network.pixel_mean, network.pixel_std = (network.pixel_mean - mean) / std, network.pixel_std / std
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.network(images.clone()).float())


def format_of(path: str | Path, chosen: str = "") -> Format:
    """The named format, or "": the format of the file's ending.

    Raises:
        ClearError: no format is known by that name or ending, or name and ending contradict each other.
    """
    suffix = Path(path).suffix.lower()
    by_suffix = next((name for name, endings in SUFFIXES.items() if suffix in endings), None)
    if chosen and chosen not in SUFFIXES:
        raise ClearError(f"Format {chosen!r} is unknown; known: {', '.join(SUFFIXES)}.")
    if chosen == "onnx" and by_suffix != "onnx":
        raise ClearError(f"{path}: an ONNX file must end in .onnx, or it could not be loaded again.")
    if chosen and by_suffix not in (None, chosen):
        known = " or ".join(SUFFIXES[chosen])
        raise ClearError(
            f"{path} has the ending of {by_suffix} and would hold {chosen}. Write {known}, or no --format."
        )
    if chosen:
        return chosen
    if by_suffix is None:
        known = ", ".join(f"{'/'.join(endings)} ({name})" for name, endings in SUFFIXES.items())
        raise ClearError(f"{path}: no format has this ending. Known: {known}.")
    return by_suffix


def check_name(path: Path) -> Path:
    """Refuses a path that is not UTF-8: torch, onnxruntime and safetensors cannot open it, and some end the process.

    Raises:
        ClearError: names the path.
    """
    if as_utf8(str(path)) != str(path):
        raise ClearError(f"{printable(str(path))}: models cannot be written under a name that is not UTF-8. Change it.")
    return path


def exportable(model: ReIDModel) -> NetworkModel:
    """The model, if it has a network of PyTorch.

    Raises:
        ClearError: it is an ONNX or TorchScript file.
    """
    if isinstance(model, NetworkModel):
        return model
    raise ClearError(
        f"{model.source} is an exported student. Give the run folder, checkpoint or tower that it was exported from."
    )


def describe(model: NetworkModel, pixels: InputPixels = "raw") -> Description:
    """The metadata that we write into an exported file."""
    kind = "0..255" if pixels == "raw" else "(x / 255 - mean) / std with ImageNet's mean and std"
    return {
        "format": 1,
        "input": f"float32 [B, 3, height, width], {kind}",
        "pixels": pixels,
        "mean": list(IMAGENET_MEAN) if pixels == "normalised" else [],
        "std": list(IMAGENET_STD) if pixels == "normalised" else [],
        "output": "float32 [B, feature_dim], L2-normalised",
        "channels": "RGB",
        "size": list(model.size),
        "resize": list(model.recipe.resize),
        "crop": list(model.recipe.crop),
        "interpolation": f"{model.recipe.interpolation}, PIL",
        "feature_dim": model.feature_dim,
        "fingerprint": model.fingerprint,
        "backbone": model.backbone_name,
        "meta_architecture": model.meta_architecture,
        "metric": model.metric,
    }


def export(
    model: NetworkModel,
    path: str | Path,
    format: Format | Literal[""] = "",
    pictures: list[Tensor] | None = None,
    pixels: InputPixels = "raw",
) -> Exported:
    """Writes the student, runs the file on random and on real images, and keeps it if its features are PyTorch's.

    Args:
        model: a student on the CPU.
        path: the file; missing folders are made.
        format: "": by the file's ending.
        pictures: real images of the student's size, uint8 [3, h, w]; None: drawn ones.
        pixels: what the file takes, 0..255 or pixels normalised by ImageNet's mean and std.

    Raises:
        ClearError: an unknown option, a network that the format cannot hold, features that differ by more than 1e-4 in
            cosine, a missing package, a place that cannot be written. An older file at `path` stays then.
    """
    path, chosen = check_name(check_writable(path)), format_of(path, format)
    if pixels not in get_args(InputPixels):
        raise ClearError(f"Input {pixels!r} is unknown; known: {', '.join(get_args(InputPixels))}.")
    write, load = {
        "onnx": (_write_onnx, load_onnx),
        "torchscript": (_write_torchscript, load_torchscript),
        "torch.export": (_write_torch_export, load_torch_export),
    }[chosen]
    real = torch.stack(pictures) if pictures else drawn_pictures(6, model.size)
    with replacing(path, keep_ending=True) as temporary:
        student = ExportedStudent(model.network, pixels).eval()
        example = as_input(drawn_pictures(2, model.size), pixels)
        try:
            with warnings.catch_warnings(), batch_size_left_open():
                warnings.simplefilter("ignore")  # tracers warn of every shape they record; the check below decides
                write(student, example, temporary, json.dumps(describe(model, pixels)))
                runner = load(temporary)
            difference, num_random = _largest_difference(model, runner, real, pixels)
        except (ClearError, OSError):
            raise
        except Exception as error:  # each exporter and runtime raises its own kinds
            reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
            raise ClearError(
                f"{model.backbone_name} cannot be exported as {chosen} ({type(error).__name__}: {reason}). Try another "
                f"--format: {', '.join(name for name in SUFFIXES if name != chosen)}."
            ) from error
        if not difference <= LARGEST_DIFFERENCE:
            how = f"differ from PyTorch's by {difference:.1e} in cosine, more than {LARGEST_DIFFERENCE:.0e}"
            if difference == float("inf"):
                how = "have another shape than PyTorch's, or are not finite"
            raise ClearError(f"{model.backbone_name} as {chosen}: features {how}. {path} is not written.")
    return Exported(path, chosen, difference, num_random, len(real))


def as_input(images: Tensor, pixels: InputPixels) -> Tensor:
    """Images uint8 [B, 3, h, w] as an exported file takes them, float32 and contiguous."""
    return (imagenet_normalised(images) if pixels == "normalised" else images.float()).contiguous()


def _largest_difference(model: NetworkModel, runner: Runner, real: Tensor, pixels: InputPixels) -> tuple[float, int]:
    """The largest 1 - cosine (infinite for another shape), and the number of random images that we ran besides `real`.

    Random images come in batches of 1 and 5, real ones in batches of 4.
    """
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(0, 256, (6, 3, *model.size), dtype=torch.uint8, generator=generator)
    worst = 0.0
    for batch in (random[:1], random[1:], *real.split(4)):
        expected, found = model.encode(batch).double(), runner(as_input(batch, pixels)).double()
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
    # dynamo=False is the tracing exporter, several times faster for these networks than the one on torch.export.
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
    options = session_options(onnxruntime)
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


def read_metadata(path: str | Path) -> Description:
    """The metadata of an exported file of any format."""
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
    """Drawn people before a blurred background, with edges and plain areas: uint8 [count, 3, h, w]."""
    generator = np.random.default_rng(0)
    return torch.stack([torch.from_numpy(_drawn(generator, size)).permute(2, 0, 1) for _ in range(count)])


def _drawn(generator: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    coarse = generator.integers(0, 256, (4, 3, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    picture = picture.filter(ImageFilter.GaussianBlur(1))
    draw = ImageDraw.Draw(picture)
    skin, upper, lower = (tuple(int(value) for value in generator.integers(0, 256, 3)) for _ in range(3))
    middle, half = width * generator.uniform(0.4, 0.6), width * generator.uniform(0.15, 0.3)
    for shape, top, bottom, colour, part in (
        (draw.rectangle, 0.55, 0.95, lower, 0.7),
        (draw.rectangle, 0.22, 0.58, upper, 1.0),
        (draw.ellipse, 0.05, 0.22, skin, 0.5),
    ):
        shape((middle - half * part, height * top, middle + half * part, height * bottom), fill=colour)
    return np.array(picture)


def real_pictures(model: NetworkModel, sources: list[str], most: int = 32, named: str = "") -> Iterator[Tensor]:
    """The first `most` readable pictures of files, folders, globs and lists, in the student's size, uint8 [3, h, w].

    Args:
        named: how an error calls the sources; "": by ``--images``.

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
        raise ClearError(f"{named or '--images ' + ' '.join(sources)}: {fault}")
