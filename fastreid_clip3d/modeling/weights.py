"""Weights from files: one reader, and one rule for what a network needs of them.

The rule: a network is filled by a file or refused. Only three kinds of tensors may keep their initial values, and only
where :func:`fitting_weights` says so: a classifier, whose rows are the people of another training set; the layers of
losses, which inference does without; and batch norm's counters, which nothing reads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fastreid_clip3d.errors import ClearError

logger = logging.getLogger(__name__)

Purpose = Literal["inference", "start", "resume"]
"""What weights are loaded for: to compute features, to begin another training, or to go on with the same training."""

TRAINING_ONLY = ("ot_loss.", "global_distill_loss.", "body_shape_loss.", "clothes_loss.", "phrase_table", "pixel_")
"""Starts of names that inference does without; the classifier is one more."""

NESTED = ("model", "state_dict", "model_state")
"""Keys under which files keep their named tensors, beside an optimiser's state, an epoch and the like."""

HUB_WEIGHTS = "model.safetensors"
"""The weights in a folder of ``clip3d push``."""


class NoWeights(ClearError):
    """A file that was read and holds no named tensors."""


def is_classifier(name: str) -> bool:
    """Whether this is a head's classifier, which has one row per person of the training set."""
    return name.endswith(("heads.weight", "_head.weight"))


def find_checkpoint(path: str | Path, named_by: str = "") -> Path:
    """The checkpoint that a path means: a file, the one that a file ``last_checkpoint`` names, or a run folder's last.

    A run folder's last checkpoint is ``model_final.pth``, or else the one that ``last_checkpoint`` names. A folder of
    ``clip3d push`` has ``model.safetensors``.

    Args:
        named_by: the key or flag that holds the path, for messages.

    Raises:
        ClearError: nothing is there; lists the checkpoints that are.
    """
    path = Path(path)
    prefix = f"{named_by} {path}" if named_by else f"{path}"
    if not os.path.exists(path):  # False for names that no file can have
        raise ClearError(f"{prefix}: no such file or folder.")
    if path.is_dir():
        if (path / "model_final.pth").is_file():
            return path / "model_final.pth"
        if (path / "last_checkpoint").is_file():
            return checkpoint_of_tag(path / "last_checkpoint")
        if (path / HUB_WEIGHTS).is_file():
            return path / HUB_WEIGHTS
        raise ClearError(f"{prefix} has neither model_final.pth nor last_checkpoint nor {HUB_WEIGHTS}. {_others(path)}")
    return checkpoint_of_tag(path) if path.name == "last_checkpoint" else path


def checkpoint_of_tag(tag: Path) -> Path:
    """The checkpoint that a run's file ``last_checkpoint`` names.

    Raises:
        ClearError: it names a file that is not in its folder.
    """
    text = tag.read_bytes().decode("utf-8", "replace").strip()
    name = Path(text.replace("\0", "")).name
    if name and os.path.isfile(tag.parent / name):  # False for names that no file can have
        return tag.parent / name
    shown = repr(text[:60]) if text else "no file: it is empty"
    named = name if name and name.isprintable() and len(name) < 60 else shown
    raise ClearError(f"{tag} names {named}, which is not in {tag.parent}. {_others(tag.parent)}")


def _others(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*.pth"))
    if not names:
        return "A run folder is the OUTPUT_DIR of a training that has written a checkpoint."
    return f"Name one of its checkpoints: {', '.join(names)}."


def read_file(path: str | Path, named_by: str = "", mapped: bool = False) -> Any:
    """What a file of weights (.pth, .pt, .bin or .safetensors) holds; only tensors, numbers and texts are unpickled.

    Args:
        named_by: the key or flag that holds the path, for messages.
        mapped: read each tensor from the disk only when it is used, so that an optimiser's state costs nothing.

    Raises:
        ClearError: the file is missing, empty, damaged or holds other Python objects.
    """
    path = Path(path)
    named = f" ({named_by})" if named_by else ""
    if not os.path.isfile(path):
        raise ClearError(f"{path}{named}: no such weights file.")
    if not path.stat().st_size:
        raise ClearError(f"{path}{named} cannot be read as weights: the file is empty (0 bytes). Name another one.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with _numpy_allowed():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except Exception as error:  # zip, pickle, EOF and safetensors errors alike
        raise ClearError(
            f"{path}{named} cannot be read as weights ({_reason(error)}). If it is damaged, name another file."
        ) from error


def _reason(error: Exception) -> str:
    text = str(error)
    if "weights_only" in text:  # torch advises to switch its protection off
        return "it is no file of torch.save, or holds Python objects other than tensors, numbers and texts"
    return f"{type(error).__name__}: {(text.splitlines() or [''])[0]}"


def _numpy_allowed() -> contextlib.AbstractContextManager[Any]:
    """Lets torch unpickle numpy's numbers and arrays too: fast-reid keeps a score beside its weights as such."""
    if not hasattr(torch.serialization, "safe_globals"):  # before torch 2.5
        return contextlib.nullcontext()
    core: Any = np._core if hasattr(np, "_core") else np.core
    functions = [
        (getattr(core.multiarray, function), f"numpy.{package}.multiarray.{function}")
        for package in ("_core", "core")
        for function in ("scalar", "_reconstruct")
    ]
    kinds = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "bool")]
    return torch.serialization.safe_globals([*functions, np.ndarray, np.dtype, *kinds])


def named_tensors(content: Any, path: str | Path, named_by: str = "") -> dict[str, Tensor]:
    """The named tensors of a file's content, bare or nested, without DataParallel's ``module.`` before their names.

    Numbers and texts beside the tensors are left out.

    Raises:
        NoWeights: there are none.
    """
    weights = content
    for _ in NESTED:
        nested = [
            weights[key] for key in NESTED if isinstance(weights, Mapping) and isinstance(weights.get(key), Mapping)
        ]
        if not nested:
            break
        weights = nested[0]
    found: dict[str, Tensor] = {}
    if isinstance(weights, Mapping):
        for name, value in weights.items():
            if isinstance(value, np.ndarray) and value.dtype != object:
                value = torch.from_numpy(value)
            if isinstance(value, Tensor):
                found[str(name).removeprefix("module.")] = value
    if not found:
        named = f" ({named_by})" if named_by else ""
        inside = f"a {type(content).__name__}"
        if isinstance(content, Mapping):
            inside = f"the keys {', '.join(map(str, list(content)[:5]))}" if content else "nothing"
        raise NoWeights(
            f"{path}{named} holds no weights: no named tensors, bare or under {', '.join(NESTED)}, but {inside}."
        )
    return found


def read_weights(path: str | Path, named_by: str = "") -> dict[str, Tensor]:
    """The named tensors of a file: :func:`read_file` and :func:`named_tensors`."""
    return named_tensors(read_file(path, named_by, mapped=True), path, named_by)


def with_current_names(weights: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Weights of fast-reid's older releases under the names of today.

    ``bnneck`` was the batch norm that is now the last layer of ``bottleneck``; the classifier was ``classifier.weight``
    of a head, or of the network, and is now the head's ``weight``. Names that the network has are left as they are.
    """
    expected = set(expected)
    renamed = {}
    for name, value in weights.items():
        new = name
        if name not in expected:
            head, separator, rest = name.partition(".bnneck.")
            if separator:
                layers = [
                    part[len(head) :].split(".")[2] for part in expected if part.startswith(f"{head}.bottleneck.")
                ]
                new = f"{head}.bottleneck.{max(layers, default='0', key=int)}.{rest}"
            elif name == "classifier.weight":
                new = "heads.weight"
            elif name.endswith(".classifier.weight"):
                new = name.removesuffix(".classifier.weight") + ".weight"
        renamed[new if new in expected or is_classifier(new) else name] = value
    return renamed


class Fit(NamedTuple):
    """Weights that fit a network, and the names of its tensors that keep their initial values."""

    weights: dict[str, Tensor]
    initial: list[str]


def fitting_weights(
    weights: Mapping[str, Tensor], network: nn.Module, purpose: Purpose, source: str, student: str
) -> Fit:
    """The tensors of a file that a network takes.

    Args:
        weights: by name. network: what they are for; it is not changed.
        purpose: what may keep its initial values. ``inference``: a classifier. ``start``: a classifier of another size
            and the layers of losses. ``resume``: nothing.
        source: how an error calls the file. student: how it calls the network.

    Raises:
        ClearError: the network has tensors that the file lacks, or of another shape, or the file belongs to another
            network, or holds values that are not real, finite numbers. Names the tensors.
    """
    expected = network.state_dict()
    weights = with_current_names(weights, expected)

    def may_stay(name: str) -> bool:
        if name.endswith("num_batches_tracked") or name == "phrase_table":
            return True
        return purpose != "resume" and (is_classifier(name) or (purpose == "start" and name.startswith(TRAINING_ONLY)))

    needed = [name for name in expected if not may_stay(name)]
    _refuse(
        [name for name in needed if name not in weights],
        f"{source} lacks {{}} of the {len(needed)} tensors of {student}",
    )
    _refuse(
        [
            f"{name} {list(weights[name].shape)}, expected {list(expected[name].shape)}"
            for name in needed
            if weights[name].shape != expected[name].shape
        ],
        f"{source} has {{}} tensors of another shape than {student}",
    )
    more = [
        name
        for name in weights
        if name not in expected and not name.startswith(TRAINING_ONLY) and not is_classifier(name)
    ]
    learned = [name for name in more if name.endswith(".pool_layer.p")]
    hint = " (the exponent of a pooling that learns it: MODEL.HEADS.POOL_LAYER GeneralizedMeanPoolingP)"
    _refuse(more, f"{source} has {{}} tensors more than {student}{hint if learned else ''}")
    # A phrase table of another teacher is let through: the model keeps its own and says so.
    kept = {
        name: value
        for name, value in weights.items()
        if name in expected and (value.shape == expected[name].shape or name == "phrase_table")
    }
    faults = {name: why_unusable(value, expected[name].is_floating_point()) for name, value in kept.items()}
    _refuse(
        [f"{name} {fault}" for name, fault in faults.items() if fault],
        f"{source} has {{}} tensors without usable numbers",
        "Name an earlier checkpoint, or another file.",
    )
    initial = [name for name in expected if name not in kept and not name.endswith("num_batches_tracked")]
    return Fit(kept, initial)


def why_unusable(value: Tensor, needs_floats: bool) -> str:
    """Why a tensor of a file cannot fill one of a network; "" if it can.

    Args:
        needs_floats: whether the network's tensor holds floats. A counter holds integers.

    >>> why_unusable(torch.tensor([1.0, float("nan")]), needs_floats=True)
    'has numbers that are not finite'
    >>> why_unusable(torch.tensor([1, 2]), needs_floats=True)
    'holds int64 numbers'
    """
    if value.layout != torch.strided or value.is_quantized:
        return "is sparse or quantised"
    if value.is_meta:
        return "has a shape and no numbers"
    if value.is_complex() or (needs_floats and not value.is_floating_point()):
        return f"holds {str(value.dtype).removeprefix('torch.')} numbers"
    if not torch.isfinite(value).all():
        return "has numbers that are not finite"
    return ""


def _refuse(names: list[str], problem: str, remedy: str = "Name the checkpoint that belongs to this config.") -> None:
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise ClearError(f"{problem.format(len(names))}: {shown}. {remedy}")


def load_weights(network: nn.Module, path: str | Path, purpose: Purpose, named_by: str = "MODEL.WEIGHTS") -> None:
    """Fills a network from a file, a run folder or its ``last_checkpoint``.

    Raises:
        ClearError: see :func:`find_checkpoint`, :func:`read_weights` and :func:`fitting_weights`.
    """
    checkpoint = find_checkpoint(path, named_by)
    apply_weights(network, read_weights(checkpoint, named_by), purpose, f"{checkpoint} ({named_by})")


def apply_weights(network: nn.Module, weights: Mapping[str, Tensor], purpose: Purpose, source: str) -> None:
    """Fills a network with named tensors and reports in the log which of its tensors keep their initial values.

    Raises:
        ClearError: see :func:`fitting_weights`.
    """
    fit = fitting_weights(weights, network, purpose, source, "the network of this config")
    network.load_state_dict(fit.weights, strict=False)
    logger.info(f"Loaded {len(fit.weights)} tensors of {source}")
    if fit.initial and purpose != "inference":
        logger.info(f"Begin with initial values, since {source} has none that fit: {', '.join(fit.initial)}")
