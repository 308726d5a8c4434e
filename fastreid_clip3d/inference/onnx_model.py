"""An exported student, run by onnxruntime: what a run folder gives, without its network and config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.preprocess import InputPixels, InputSize, Interpolation, imagenet_normalised

METADATA_KEY = "fastreid_clip3d"
"""The key of an exported file's metadata that holds the json of ``export.describe``."""


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

    def _describe(self, path: Path, described: dict[str, Any]) -> None:
        try:
            if described["channels"] != "RGB":
                raise ClearError(f"{path} takes {described['channels']} images; only RGB is known.")
            pixels = described.get("pixels", "raw")  # files from before the flag --input take raw pixels
            if pixels not in ("raw", "normalised"):
                raise ClearError(f"{path} takes {pixels!r} pixels; only raw and normalised are known. Export it again.")
            self.input_pixels = cast(InputPixels, pixels)
            interpolation: Interpolation = (
                "bilinear" if described.get("interpolation", "").startswith("bilinear") else "bicubic"
            )
            self.recipe = InputSize(tuple(described["resize"]), tuple(described["crop"]), interpolation)
            self.feature_dim, self.fingerprint = int(described["feature_dim"]), str(described["fingerprint"])
            self.backbone_name, self.metric = str(described["backbone"]), str(described["metric"])
        except (KeyError, TypeError, ValueError) as error:
            raise ClearError(
                f"{path} does not say which student it holds ({METADATA_KEY} in its metadata lacks {error}). Export it "
                "again."
            ) from error

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
    described = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
    return json.loads(described) if described else {}


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
