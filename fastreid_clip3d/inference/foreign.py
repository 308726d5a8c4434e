"""A network of somebody else in an ONNX or TorchScript file: we know its images and vectors, not its parts.

B: images. d': width of the vector. h, w: input size of the network.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.image_settings import (
    ASSUMED,
    ImageSettings,
    as_input,
    check_settings,
    check_statistics,
    read_settings,
    settings_file,
)
from fastreid_clip3d.inference.onnx_model import METADATA_KEY, device_of_session, read_description
from fastreid_clip3d.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, InputSize

logger = logging.getLogger(__name__)

TORCHSCRIPT_ENDINGS = (".torchscript", ".ts", ".pt")
_METADATA_FILE = f"{METADATA_KEY}.json"
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
"""How an ONNX file begins the name of a file beside it that holds weights (protobuf): the name's length is the byte."""
_SAME = 1e-5
"""The largest difference, relative to their size, between vectors that we call equal."""


class Network(NamedTuple):
    """What a file says about its network.

    Attributes:
        run: float32 [B, 3, h, w], any device -> all outputs.
        size: (height, width) where the file fixes them, each None where it does not.
        batch: B where the file fixes it, else None.
        device: where it runs. kind: "ONNX" or "TorchScript", for messages.
        settings: what the file itself says about its images. recipe: how it says that pictures get their size; None:
            nothing, so that they are resized to it.
    """

    run: Callable[[Tensor], Sequence[Tensor]]
    size: tuple[int | None, int | None]
    batch: int | None
    device: torch.device
    kind: str
    settings: ImageSettings
    recipe: InputSize | None = None


class ForeignModel(ReIDModel):
    """A network that maps images to vectors, from a file of another tool.

    Attributes:
        path: the file. settings: how pictures become its input, complete.
    """

    def __init__(self, path: Path, network: Network, settings: ImageSettings) -> None:
        self.path, self.network, self.device = path, network, network.device
        self.source, self.run_folder = str(path), path.parent
        self.backbone_name = f"{path.name} ({network.kind})"
        self.settings = _complete(path, network, settings)
        assert self.settings.size
        own = network.recipe
        self.recipe = own if own and own.size == self.settings.size else InputSize(self.settings.size)
        self._batch = network.batch
        self.feature_dim = self._probe()
        self.fingerprint = _fingerprint(path, self.settings)

    def _features(self, pixels: Tensor) -> Tensor:
        if not len(pixels):
            return torch.zeros(0, self.feature_dim)
        return F.normalize(self._vectors(pixels))

    def _vectors(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, h, w] -> float32 [B, d'] on the CPU, not normalised; B may differ from the network's own."""
        step = self._batch or len(pixels)
        parts = []
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step]
            filled = torch.cat([part, part[-1:].expand(step - len(part), -1, -1, -1)])
            parts.append(self._one_vector_each(self._run(filled), step)[: len(part)])
        return torch.cat(parts)

    def _run(self, pixels: Tensor) -> Sequence[Tensor]:
        images = as_input(pixels, self.settings)
        try:
            return self.network.run(images)
        except Exception as error:  # onnxruntime and TorchScript raise whatever the network does
            reason = (" ".join(str(error).split()) or type(error).__name__)[-300:]
            raise ClearError(
                f"{self.path} cannot be run on images {list(images.shape)} ({reason}). Is --size {images.shape[2]} "
                f"{images.shape[3]} the height and width that it takes?"
            ) from error

    def _one_vector_each(self, outputs: Sequence[Tensor], count: int) -> Tensor:
        shapes = [list(output.shape) for output in outputs]
        flat = [output.flatten(1) for output in outputs if output.ndim >= 2 and output.shape[2:].numel() == 1]
        vectors = [output for output in flat if len(output) == count and output.shape[1] > 1]
        if len(vectors) != 1:
            raise ClearError(
                f"{self.path} gives {', '.join(map(str, shapes)) or 'nothing'} for {count} images; a ReID network "
                f"gives one output [{count}, d'], with d' above 1. Export it without its classifier and other outputs."
            )
        return vectors[0].float().cpu()

    def _probe(self) -> int:
        """d', after two different pictures went through the network.

        Raises:
            ClearError: their vectors are not finite, equal, or depend on the other pictures of the batch.
        """
        pictures = probe_pictures(self.size)
        if self._batch is None:
            try:
                together = self._vectors(pictures)
            except ClearError:
                self._batch = 1  # TorchScript does not say whether tracing fixed the number of images
                together = self._vectors(pictures)
        else:
            together = self._vectors(pictures)
        if not torch.isfinite(together).all():
            raise ClearError(
                f"{self.path} gives numbers that are not finite for ordinary pictures. Check --mean, --std and --range "
                f"({_words(self.settings)}), or export the file in float32."
            )
        if not _differ(together[0], together[1]):
            raise ClearError(
                f"{self.path} gives the same vector for two different pictures. Check --mean, --std and --range "
                f"({_words(self.settings)}), and that the file holds trained weights."
            )
        if self._batch is None and _differ(together[0], self._vectors(pictures[:1])[0], 1e-2):
            raise ClearError(
                f"{self.path}: the vector of a picture depends on the other pictures of its batch. The file was "
                "exported in training mode; export it again after model.eval()."
            )
        return together.shape[1]


def load_onnx_file(path: Path, session: Any, settings: ImageSettings) -> ForeignModel:
    """A network in an ``.onnx`` file that is not an export of ours.

    Raises:
        ClearError: it has another input than one batch of images; see :class:`ForeignModel` for the others.
    """
    inputs = session.get_inputs()
    types = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}
    shape: list[Any] = inputs[0].shape if len(inputs) == 1 else []
    if len(shape) != 4 or inputs[0].type not in types or (isinstance(shape[1], int) and shape[1] != 3):
        described = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise ClearError(f"{path} takes {described}; it must take one float tensor [B, 3, height, width].")
    name, dtype = inputs[0].name, types[inputs[0].type]

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {name: images.to("cpu", dtype).numpy()})]

    batch, height, width = (value if isinstance(value, int) else None for value in (shape[0], *shape[2:]))
    network = Network(run, (height, width), batch, device_of_session(session), "ONNX", ImageSettings())
    return ForeignModel(path, network, settings)


def load_torchscript_file(path: Path, device: str, settings: ImageSettings) -> ForeignModel:
    """A network in a TorchScript file. The file is a program: the caller has made sure that the user trusts it.

    Raises:
        ClearError: the file is missing or damaged; see :class:`ForeignModel` for the others.
    """
    if not path.is_file():
        raise ClearError(f"{path}: no such file.")
    chosen, extra = find_device(device), {_METADATA_FILE: ""}
    try:
        module = torch.jit.load(str(path), map_location=chosen, _extra_files=extra).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ClearError(f"{path} cannot be read as TorchScript ({reason}).") from error
    dtype = next((value.dtype for value in module.parameters() if value.is_floating_point()), torch.float32)

    @torch.no_grad()
    def run(images: Tensor) -> list[Tensor]:
        output = module(images.to(chosen, dtype))
        return [output] if isinstance(output, Tensor) else list(output.values() if isinstance(output, dict) else output)

    own = _settings_of_export(path, extra[_METADATA_FILE])
    return ForeignModel(path, Network(run, (None, None), None, chosen, "TorchScript", *own), settings)


def probe_pictures(size: tuple[int, int]) -> Tensor:
    """Two different pictures, uint8 [2, 3, h, w]: coloured areas with edges."""
    generator = torch.Generator().manual_seed(0)
    areas = torch.randint(0, 256, (2, 3, 8, 4), generator=generator).float()
    return F.interpolate(areas, size=size, mode="nearest").to(torch.uint8)


def _settings_of_export(path: Path, described: str | bytes) -> tuple[ImageSettings, InputSize | None]:
    """What `clip3d export` wrote into a TorchScript file."""
    content = read_description(described)
    if not content:
        return ImageSettings(), None
    try:
        recipe, pixels = InputSize.from_metadata(content), content["pixels"]
    except (KeyError, ValueError) as error:
        raise ClearError(f"{path}: {_METADATA_FILE} in it is damaged ({error}). Export it again.") from error
    if pixels == "normalised":
        return ImageSettings(recipe.size, IMAGENET_MEAN, IMAGENET_STD, "RGB", 1), recipe
    return ImageSettings(recipe.size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "RGB", 255), recipe


def _complete(path: Path, network: Network, chosen: ImageSettings) -> ImageSettings:
    """The settings that the user chose, then those of the yaml file, of the file itself, and the usual ones."""
    known = check_settings(chosen, "The settings").over(read_settings(path)).over(network.settings)
    size = known.size or network.size
    if None in size:
        raise ClearError(
            f"{path} does not say which size of images it takes. Give it: --size HEIGHT WIDTH "
            "(load_model(..., size=(256, 128)))."
        )
    for name, fixed, given in zip(("height", "width"), network.size, size):
        if fixed is not None and fixed != given:
            raise ClearError(f"{path} takes images {network.size[0]} x {network.size[1]}; the {name} {given} is wrong.")
    complete = ImageSettings(size=(int(size[0] or 0), int(size[1] or 0))).over(known).over(ASSUMED)
    check_statistics(complete, str(path))
    assumed = ImageSettings(**{name: value for name, value in ASSUMED.given().items() if name not in known.given()})
    if assumed.given():
        logger.warning(
            f"{path}: neither you nor {settings_file(path).name} give {', '.join(assumed.given())}; we assume "
            f"{_words(assumed)}. Check this, then keep it there: clip3d check-model ... --save-settings"
        )
    return complete


def _words(settings: ImageSettings) -> str:
    values = ((name, value if isinstance(value, tuple) else (value,)) for name, value in settings.given().items())
    return ", ".join(f"{name} {' '.join(map(str, value))}" for name, value in values)


def _differ(a: Tensor, b: Tensor, tolerance: float = _SAME) -> bool:
    return float((a - b).abs().max()) > tolerance * float(torch.maximum(a.abs().max(), b.abs().max()))


def _fingerprint(path: Path, settings: ImageSettings) -> str:
    digest = hashlib.sha256(json.dumps(settings.given(), sort_keys=True).encode())
    for part in (path, *_weights_beside(path)):
        with open(part, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]


def _weights_beside(path: Path) -> list[Path]:
    """The files in which a large ONNX file keeps its weights; onnxruntime has read them before."""
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names = {content[found.end() : found.end() + found[1][0]] for found in _LOCATION.finditer(content)}
    beside = (path.parent / os.fsdecode(name) for name in sorted(names))
    return [part for part in beside if os.path.isfile(part)]
