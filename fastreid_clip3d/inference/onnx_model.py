"""An exported student, run by onnxruntime: the same object as a run folder gives, without its network and config."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.preprocess import InputSize

logger = logging.getLogger(__name__)

METADATA_KEY = "fastreid_clip3d"
"""Where an exported file says what it is, as json: see ``export.describe``."""


class OnnxModel(ReIDModel):
    """A student in an ``.onnx`` file of ``clip3d export``."""

    def __init__(self, path: Path, device: str = "") -> None:
        onnxruntime = import_onnxruntime()
        if not path.is_file():
            raise ClearError(f"{path}: no such file.")
        self.run_folder = path.parent
        providers = _providers(onnxruntime, device)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
            described = json.loads(self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}"))
        except Exception as error:  # onnxruntime has an exception of its own for each kind of damage
            reason = (str(error).splitlines() or [""])[0]
            raise ClearError(f"{path} cannot be read as an ONNX network ({reason}). Export it again.") from error
        self._describe(path, described)
        on_cuda = self.session.get_providers()[0] == "CUDAExecutionProvider"
        self.device = torch.device(device or "cuda") if on_cuda else torch.device("cpu")

    def _describe(self, path: Path, described: dict[str, Any]) -> None:
        try:
            if described["channels"] != "RGB":
                raise ClearError(f"{path} takes {described['channels']} images; only RGB is known.")
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
        images = pixels.cpu().float().contiguous().numpy()
        return torch.from_numpy(self.session.run(None, {"images": images})[0])


def import_onnxruntime() -> Any:
    """The package.

    Raises:
        ClearError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ClearError("ONNX files are run by the package onnxruntime: pip install onnxruntime") from error
    return onnxruntime


def _providers(onnxruntime: Any, device: str) -> list[Any]:
    with_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    chosen = find_device(device or ("" if with_cuda else "cpu"))
    if chosen.type == "cpu":
        return ["CPUExecutionProvider"]
    if chosen.type != "cuda" or not with_cuda:
        raise ClearError(
            f"Device {device}: this onnxruntime has no provider for it. Choose cpu, or install onnxruntime-gpu for CUDA."
        )
    return [("CUDAExecutionProvider", {"device_id": chosen.index or 0}), "CPUExecutionProvider"]
