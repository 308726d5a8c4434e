"""fast-reid's builders of backbones: where they find their files, and what they do with weights that do not fit."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from torch import nn

from fastreid_clip3d.compat.replacement import Reached

_PACKAGED_FILE = "fastreid/modeling/backbones/regnet/effnet/EN-B0_dds_8gpu.yaml"


class ConfigFoundAnywhere:
    """Stands for a family's config node; it takes a relative path first from beside the package fastreid."""

    def __init__(self, node: Any) -> None:
        import fastreid

        self._node = node
        self._package_parent = os.path.dirname(os.path.dirname(os.path.abspath(fastreid.__file__)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def merge_from_file(self, cfg_filename: str) -> None:
        packaged = os.path.join(self._package_parent, cfg_filename)
        self._node.merge_from_file(packaged if os.path.exists(packaged) else cfg_filename)


def reads_below_the_working_directory(node: Any) -> bool:
    """Whether the config node opens the path of a packaged file as it is, which no file is read for."""
    with mock.patch("yacs.config.open", side_effect=Reached) as opened:
        try:
            node.merge_from_file(_PACKAGED_FILE)
        except Reached:
            return not os.path.isabs(opened.call_args.args[0])
    return False


class Loaded(NamedTuple):
    """One call of ``load_state_dict``: names the file lacked, names it had too many, all names of the module."""

    missing: list[str]
    unexpected: list[str]
    expected: list[str]


def recording(load_state_dict: Callable[..., Any], records: list[Loaded]) -> Callable[..., Any]:
    """``load_state_dict`` that also appends its result to `records`."""

    @functools.wraps(load_state_dict)
    def load(module: nn.Module, state_dict: Any, *arguments: Any, **keywords: Any) -> Any:
        result = load_state_dict(module, state_dict, *arguments, **keywords)
        records.append(Loaded(list(result.missing_keys), list(result.unexpected_keys), list(module.state_dict())))
        return result

    return load


def accepts_half_loaded_students(build_backbone: Callable[[Any], nn.Module]) -> bool:
    """Whether a backbone comes back whose pretrained file had none of its weights."""
    return _backbone_from_an_empty_file(build_backbone) is not None


def drops_what_is_missing(load_state_dict: Callable[..., Any]) -> bool:
    """Whether the caller of fast-reid's ``build_backbone`` does not learn what ``load_state_dict`` found missing."""
    from fastreid.modeling.backbones import build_backbone

    missing = load_state_dict(nn.BatchNorm1d(1), {}, strict=False).missing_keys
    return bool(missing) and _backbone_from_an_empty_file(build_backbone) is not None


def _backbone_from_an_empty_file(build_backbone: Callable[[Any], nn.Module]) -> nn.Module | None:
    """What `build_backbone` returns for a builder that loads as fast-reid's do; None if it raises."""

    def builder(cfg: Any) -> nn.Module:
        backbone = nn.BatchNorm1d(1)
        backbone.load_state_dict({}, strict=False)
        return backbone

    cfg = SimpleNamespace(MODEL=SimpleNamespace(BACKBONE=SimpleNamespace(NAME="probe", PRETRAIN=True)))
    with mock.patch("fastreid.modeling.backbones.build.BACKBONE_REGISTRY.get", return_value=builder):
        try:
            return build_backbone(cfg)
        except Exception:  # whichever error fast-reid may choose
            return None
