"""Names that fast-reid imports and that Python and torch have since moved or removed."""

from __future__ import annotations

import collections.abc
import types
from typing import Any

from fastreid_clip3d.compat.replacement import ABSENT


def is_absent(original: Any) -> bool:
    """Whether the name does not exist here."""
    return original is ABSENT


def six_module(original: Any) -> types.ModuleType:
    """A ``torch._six`` with the one name that fast-reid uses."""
    module = types.ModuleType("torch._six")
    module.string_classes = (str, bytes)
    return module


def mapping_class(original: Any) -> type:
    """Today's ``Mapping``."""
    return collections.abc.Mapping
