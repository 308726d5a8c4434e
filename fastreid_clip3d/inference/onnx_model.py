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
from fastreid_clip3d.inference.preprocess import InputPixels, InputSize, imagenet_normalised

METADATA_KEY = "fastreid_clip3d"
"""The key of an exported file's metadata that holds the json of ``export.describe``."""


class OnnxModel(ReIDModel):
    """A student in an ``.onnx`` file of ``clip3d export``.

    Attributes:
        input_pixels: what the file takes, see ``InputPixels``. The model itself takes pictures either way.
    """

    input_pixels: InputPixels

    def __init__(self, path: Path, device: str = "") -> None:
        onnxruntime = import_onnxruntime()
        if not path.is_file():
            raise ClearError(f"{path}: no such file.")
        self.run_folder = path.parent
        providers = _providers(onnxruntime, device)
        try:
            self.session = onnxruntime.InferenceSession(str(path), session_options(onnxruntime), providers=providers)
            described = json.loads(self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}"))
        except Exception as error:  # onnxruntime raises another exception for each kind of damage
            reason = (str(error).splitlines() or [""])[0]
            raise ClearError(f"{path} cannot be read as an ONNX network ({reason}). Export it again.") from error
        self._describe(path, described)
        on_cuda = self.session.get_providers()[0] == "CUDAExecutionProvider"
        self.device = torch.device(device or "cuda") if on_cuda else torch.device("cpu")

    def _describe(self, path: Path, described: dict[str, Any]) -> None:
        try:
            if described["channels"] != "RGB":
                raise ClearError(f"{path} takes {described['channels']} images; only RGB is known.")
            pixels = described.get("pixels", "raw")  # files from before the flag --input take raw pixels
            if pixels not in ("raw", "normalised"):
                raise ClearError(f"{path} takes {pixels!r} pixels; only raw and normalised are known. Export it again.")
            self.input_pixels = cast(InputPixels, pixels)
            self.recipe = InputSize(tuple(described["resize"]), tuple(described["crop"]))
            self.feature_dim, self.fingerprint = int(described["feature_dim"]), str(described["fingerprint"])
            self.backbone_name, self.metric = str(described["backbone"]), str(described["metric"])
        except (KeyError, TypeError, ValueError) as error:
            raise ClearError(
                f"{path} does not say which student it holds ({METADATA_KEY} in its metadata lacks {error}). Only "
                "files of `clip3d export` can be loaded."
            ) from error

    def _features(self, pixels: Tensor) -> Tensor:
        if not len(pixels):
            return torch.zeros(0, self.feature_dim)
        given = pixels.cpu()
        images = (imagenet_normalised(given) if self.input_pixels == "normalised" else given.float()).contiguous()
        return torch.from_numpy(self.session.run(None, {"images": images.numpy()})[0])


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
