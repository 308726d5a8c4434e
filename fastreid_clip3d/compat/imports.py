"""Names that fast-reid imports and that Python and torch have since moved or removed."""

from __future__ import annotations

import collections.abc
import functools
import os
import types
from collections.abc import Callable
from typing import Any

from fastreid_clip3d.compat.replacement import ABSENT
from fastreid_clip3d.errors import ClearError


def is_absent(original: Any) -> bool:
    """Whether the name does not exist here."""
    return original is ABSENT


def six_module(original: Any) -> types.ModuleType:
    """A ``torch._six`` with the one name that fast-reid uses."""
    module = types.ModuleType("torch._six")
    module.__dict__["string_classes"] = (str, bytes)
    return module


def fails_without_a_name(get_user: Callable[[], str]) -> bool:
    """Whether this process runs under a user id that has no name, as in containers with ``--user 1234``."""
    try:
        get_user()
    except (KeyError, OSError, ImportError):
        return True
    return False


def numbered_user(get_user: Callable[[], str]) -> Callable[[], str]:
    """Gives the user id where it has no name."""

    @functools.wraps(get_user)
    def name_or_number() -> str:
        try:
            return get_user()
        except (KeyError, OSError, ImportError):
            return str(os.getuid() if hasattr(os, "getuid") else "user")

    return name_or_number


def mapping_class(original: Any) -> type:
    """Today's ``Mapping``."""
    return collections.abc.Mapping


class MissingFaiss(types.ModuleType):
    """Stands for faiss while fast-reid is imported: using it later is a clear error, importing it is none."""

    METRIC_L2 = 1
    """fast-reid reads it at its import, as a default argument. 1 is its value in every faiss."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ClearError(
            "fast-reid searches with faiss here (re-ranking, query expansion), and faiss is not installed: pip install "
            "faiss-cpu."
        )


def missing_faiss(original: Any) -> types.ModuleType:
    """A module ``faiss`` without functions."""
    return MissingFaiss("faiss")
