"""Names that fast-reid imports and that Python and torch have since moved or removed."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import importlib.util
import sys
import types
import warnings
from typing import Iterator


@contextlib.contextmanager
def names_fastreid_expects() -> Iterator[None]:
    """Provides ``torch._six.string_classes`` and ``collections.Mapping`` while fast-reid is imported, then removes them.

    The warnings of that import (missing Cython, invalid escapes in docstrings) are of no use to anyone and stay silent.
    """
    lent_module = importlib.util.find_spec("torch._six") is None and "torch._six" not in sys.modules
    lent_mapping = not hasattr(collections, "Mapping")
    if lent_module:
        module = types.ModuleType("torch._six")
        module.string_classes = (str, bytes)
        sys.modules["torch._six"] = module
    if lent_mapping:
        collections.Mapping = collections.abc.Mapping
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if lent_module:
            del sys.modules["torch._six"]
        if lent_mapping:
            del collections.Mapping
