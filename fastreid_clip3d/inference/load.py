"""One function for models of every source: our runs and exports, fast-reid's, other files, towers, the hub."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastreid_clip3d.common.images import Channels
from fastreid_clip3d.config_loading import imports_are_allowed
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.foreign import load_onnx_file, load_torchscript_file
from fastreid_clip3d.inference.image_settings import ImageSettings, Range, check_settings
from fastreid_clip3d.inference.model import TorchModel, load_torch_model
from fastreid_clip3d.inference.onnx_model import OnnxModel, description_of, open_session

Format = Literal["", "torchscript"]
TORCHSCRIPT, TIMM, OPEN_CLIP = "torchscript:", "timm:", "open_clip:"


def load_model(
    source: str | Path,
    device: str = "",
    allow_imports: bool = False,
    *,
    config: str = "",
    format: Format = "",
    size: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: Channels | None = None,
    range: Range | None = None,
) -> ReIDModel:
    """A model, ready for pictures, whatever it comes from.

    Args:
        source: one of

            - a run folder (its ``model_final.pth``, or the file that ``last_checkpoint`` names), a folder of
              ``clip3d push``, a checkpoint with ``config.yaml`` beside it, or a checkpoint of fast-reid and `config`;
            - an ``.onnx`` file, of ``clip3d export`` or of another tool;
            - ``torchscript:FILE``, or a file that ends in ``.ts`` or ``.torchscript``: a program, see `allow_imports`;
            - ``timm:NAME``, ``timm:NAME?weights=FILE``, ``open_clip:NAME/TAG``, ``open_clip:embedded``;
            - ``hf-hub:OWNER/NAME``, a model that ``clip3d push`` uploaded.
        device: ``cpu``, ``cuda`` or ``cuda:N``; "": CUDA where there is a device, else the CPU.
        allow_imports: whether code of the model's author may run: the modules that a run's config.yaml names
            (``IMPORTS``), or a TorchScript file, which is a program.
        config: the config file of a checkpoint; "": ``config.yaml`` beside it.
        format: "torchscript" says that a file is TorchScript, whatever its name.
        size: (height, width) of the input of an ONNX or TorchScript file, or of a network of timm, in pixels.
        mean, std: of an ONNX or TorchScript file: its pixel statistics in 0..`range`, in the order of `channels`.
        channels: the order of colours that such a file takes, "RGB" or "BGR". The pictures that you give the model
            later have their own argument for that.
        range: the value of a white pixel before mean and std, 1 or 255. What is not given is read from the yaml file
            beside the model, ``model.yaml`` beside ``model.onnx``; else we assume RGB, range 1, ImageNet's statistics.

    Raises:
        ClearError: what is missing, damaged, does not fit or is not allowed, and what the user can do.

    >>> model = load_model("logs/demo/clip3d", device="cpu")
    >>> features = model(["a.jpg", "b.jpg"])
    >>> tuple(features.shape) == (2, model.feature_dim), features.norm(dim=1).round(decimals=4)
    (True, tensor([1., 1.]))
    """
    settings = ImageSettings(
        None if size is None else (int(size[0]), int(size[-1])),
        None if mean is None else tuple(map(float, mean)),
        None if std is None else tuple(map(float, std)),
        channels,
        range,
    )
    return ModelSource(str(source), config, settings, format, allow_imports).load(device)


@dataclass(frozen=True)
class ModelSource:
    """What ``--model`` and the flags beside it name; the arguments of :func:`load_model`."""

    source: str
    config: str = ""
    settings: ImageSettings = ImageSettings()
    format: Format = ""
    allow_imports: bool = False

    def load(self, device: str = "") -> ReIDModel:
        """The model; see :func:`load_model`."""
        check_settings(self.settings, "The arguments")
        if self.source.startswith((TIMM, OPEN_CLIP)):
            return self._tower(device)
        path = Path(self.source.removeprefix(TORCHSCRIPT))
        by_name = self.source.startswith(TORCHSCRIPT) or path.suffix.lower() in (".ts", ".torchscript")
        if self.format == "torchscript" or by_name:
            self._refuse("a TorchScript file", config=self.config)
            if not (self.allow_imports or imports_are_allowed()):
                raise ClearError(
                    f"{path}: a TorchScript file is a program of its author, which can read and write your files. If "
                    "you trust it, allow it: load_model(..., allow_imports=True), or --allow-imports behind a command."
                )
            return load_torchscript_file(path, device, self.settings)
        if path.suffix.lower() == ".onnx":
            self._refuse("an ONNX file", config=self.config)
            session = open_session(path, device)
            described = description_of(session)
            if not described:
                return load_onnx_file(path, session, self.settings)
            self._refuse("an export of `clip3d export`, which knows its own settings,", **self.settings.given())
            return OnnxModel(path, session, described)
        return self.load_torch(device)

    def load_torch(self, device: str = "") -> TorchModel:
        """The model of a run or checkpoint, for callers that need its parts; other sources are refused."""
        path = Path(self.source)
        if path.suffix in (".pt", ".pth") and _is_torchscript(path):
            raise ClearError(f"{path} is TorchScript, not a checkpoint. Write {TORCHSCRIPT}{path}.")
        self._refuse("a run or checkpoint, whose config has its own settings,", **self.settings.given())
        return load_torch_model(self.source, device, self.allow_imports, self.config)

    def _tower(self, device: str) -> ReIDModel:
        from fastreid_clip3d.inference.towers import open_clip_tower, timm_tower

        given = self.settings.given()
        size = given.pop("size", None) if self.source.startswith(TIMM) else None
        self._refuse("a tower, which knows its own settings,", config=self.config, format=self.format, **given)
        if self.source.startswith(TIMM):
            return timm_tower(self.source, device, size)
        return open_clip_tower(self.source, device)

    def _refuse(self, kind: str, **given: object) -> None:
        names = [f"--{name}" for name, value in given.items() if value]
        if names:
            raise ClearError(f"{self.source} is {kind} and takes no {', '.join(names)}. Leave them out.")


def as_source(model: str | Path | ModelSource) -> ModelSource:
    """A source with or without the arguments of :func:`load_model`."""
    return model if isinstance(model, ModelSource) else ModelSource(str(model))


def open_model(model: str | Path | ModelSource, device: str = "") -> ReIDModel:
    """The model of a source with or without the arguments of :func:`load_model`."""
    return as_source(model).load(device)


def _is_torchscript(path: Path) -> bool:
    if not (path.is_file() and zipfile.is_zipfile(path)):  # a FIFO would block the reader
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):  # the reader of weights names a damaged file
        return False
