"""An exported student, run by onnxruntime: what a run folder gives, without its network and config."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.preprocess import InputPixels, InputSize, imagenet_normalised

METADATA_KEY = "fastreid_clip3d"
"""The key of an exported file's metadata that holds the json of ``export.describe``."""
_FINGERPRINT = re.compile("[0-9a-f]{32}")
"""It names a folder of the index, so a path must not pass."""


class OnnxModel(ReIDModel):
    """A student in an ``.onnx`` file of ``clip3d export``.

    Attributes:
        input_pixels: what the file takes, see ``InputPixels``. The model itself takes pictures either way.
    """

    input_pixels: InputPixels

    def __init__(self, path: Path, session: Any, described: dict[str, Any]) -> None:
        self.run_folder, self.source, self.session = path.parent, str(path), session
        self._describe(path, described)
        self.device = device_of_session(session)
        self._check_network()

    def _describe(self, path: Path, described: dict[str, Any]) -> None:
        try:
            if described["channels"] != "RGB":
                raise ClearError(f"{path} takes {described['channels']} images; only RGB is known.")
            pixels = described.get("pixels", "raw")  # files from before the flag --input take raw pixels
            if pixels not in ("raw", "normalised"):
                raise ClearError(f"{path} takes {pixels!r} pixels; only raw and normalised are known. Export it again.")
            self.input_pixels = cast(InputPixels, pixels)
            self.recipe = InputSize.from_metadata(described)
            self.feature_dim, self.fingerprint = int(described["feature_dim"]), str(described["fingerprint"])
            self.backbone_name, self.metric = str(described["backbone"]), str(described["metric"])
            if not _FINGERPRINT.fullmatch(self.fingerprint):
                raise ValueError(f"fingerprint {self.fingerprint!r}")
        except (KeyError, TypeError, ValueError) as error:
            fault = f"lacks {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
            raise ClearError(
                f"{path} does not say which student it holds ({METADATA_KEY} in its metadata {fault}). Export it again."
            ) from error

    def _check_network(self) -> None:
        """Refuses metadata that do not belong to the network beside them, before any picture is read."""
        inputs = [(one.name, list(one.shape[2:])) for one in self.session.get_inputs()]
        if inputs != [("images", list(self.size))]:
            raise ClearError(
                f"{self.source} says that it takes `images` of {list(self.size)} pixels, and its network takes "
                f"{', '.join(f'`{name}` of {size}' for name, size in inputs)}. Export it again."
            )
        try:
            shape = list(self._features(torch.full((1, 3, *self.size), 255, dtype=torch.uint8)).shape)
        except Exception as error:  # onnxruntime raises another exception for each kind of fault
            reason = " ".join(str(error).split())[:300]
            raise ClearError(f"{self.source} cannot be run on an image ({reason}). Export it again.") from error
        if shape != [1, self.feature_dim]:
            raise ClearError(
                f"{self.source} says that it gives {self.feature_dim} numbers per image, and its network gives "
                f"{shape} for one image. Export it again."
            )

    def _features(self, pixels: Tensor) -> Tensor:
        if not len(pixels):
            return torch.zeros(0, self.feature_dim)
        given = pixels.cpu()
        images = (imagenet_normalised(given) if self.input_pixels == "normalised" else given.float()).contiguous()
        return torch.from_numpy(self.session.run(None, {"images": images.numpy()})[0])


def open_session(path: Path, device: str = "") -> Any:
    """onnxruntime's session of a file.

    Raises:
        ClearError: the file is missing or damaged, onnxruntime is missing, or it cannot use the device.
    """
    onnxruntime = import_onnxruntime()
    if not path.is_file():
        raise ClearError(f"{path}: no such file.")
    providers = _providers(onnxruntime, device)
    try:
        return onnxruntime.InferenceSession(str(path), session_options(onnxruntime), providers=providers)
    except Exception as error:  # onnxruntime raises another exception for each kind of damage
        reason = (str(error).splitlines() or [""])[0]
        raise ClearError(f"{path} cannot be read as an ONNX network ({reason}). Export it again.") from error


def description_of(session: Any) -> dict[str, Any]:
    """What `clip3d export` wrote into a session's file; {} for the file of another tool."""
    return read_description(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, ""))


def read_description(text: str | bytes) -> dict[str, Any]:
    """The metadata of an exported file from their json; {} where there are none. Damaged ones lack every key."""
    if not text:
        return {}
    try:
        described = json.loads(text)
    except (ValueError, RecursionError):
        described = None
    return described if isinstance(described, dict) else {"damaged": True}


def device_of_session(session: Any) -> torch.device:
    """The device that a session runs on."""
    if session.get_providers()[0] != "CUDAExecutionProvider":
        return torch.device("cpu")
    return torch.device("cuda", int(session.get_provider_options()["CUDAExecutionProvider"].get("device_id", 0)))


def import_onnxruntime() -> Any:
    """The package onnxruntime; a ClearError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ClearError("ONNX files are run by the package onnxruntime: pip install onnxruntime") from error
    return onnxruntime


def session_options(onnxruntime: Any) -> Any:
    """Options of an onnxruntime session: torch's number of threads, and no log below errors."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    return options


def _providers(onnxruntime: Any, device: str) -> list[Any]:
    with_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    chosen = find_device(device or ("" if with_cuda else "cpu"))
    if chosen.type == "cpu":
        return ["CPUExecutionProvider"]
    if chosen.type != "cuda" or not with_cuda:
        raise ClearError(
            f"Device {device}: this onnxruntime has no provider for it. Choose cpu, or install onnxruntime-gpu for "
            "CUDA."
        )
    return [("CUDAExecutionProvider", {"device_id": chosen.index or 0}), "CPUExecutionProvider"]
