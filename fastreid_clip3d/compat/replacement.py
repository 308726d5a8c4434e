"""A row of the table of replacements, and how a row takes effect."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

ABSENT = object()
"""Stands for a name that does not exist."""

When = Literal["always", "while fast-reid is imported", "in a block"]


class Reached(Exception):
    """A probe raises it in place of a call that it must not make."""


@dataclass(frozen=True)
class Replacement:
    """One function, class or name of another library that is replaced where a probe shows that this is needed."""

    names: tuple[str, ...]
    """All places that hold the replaced object, each as ``module:attribute`` or ``module``; the first one is probed."""

    needed: Callable[[Any], bool]
    """The probe. It gets what stands at the first name now, tries it in some milliseconds, and uses no GPU."""

    make: Callable[..., Any]
    """``make(original)`` is what takes its place; a block may pass further arguments."""

    why: str
    """What goes wrong without it."""

    until: str
    """When the row can be deleted."""

    when: When = "always"

    def is_needed(self) -> bool:
        """What the probe says about the object that stands at the first name now."""
        return self.needed(current(self.names[0]))

    def apply(self) -> None:
        """Puts the replacement at every name that exists, if it is needed."""
        original = current(self.names[0])
        if self.needed(original):
            replacement = self.make(original)
            for name in self.names:
                if current(name) is not ABSENT:
                    put(name, replacement)


@contextlib.contextmanager
def in_force(row: Replacement, *arguments: Any) -> Iterator[None]:
    """In this block the row's replacement stands at all its names, if it is needed; `arguments` go to ``make``."""
    if not row.is_needed():
        yield
        return
    originals = {name: current(name) for name in row.names}
    replacement = row.make(originals[row.names[0]], *arguments)
    try:
        for name in row.names:
            put(name, replacement)
        yield
    finally:
        for name, original in originals.items():
            put(name, original)


def constant(replacement: Any) -> Callable[[Any], Any]:
    """A ``make`` that does not use the original."""
    return lambda original: replacement


def current(name: str) -> Any:
    """What stands at ``module:attribute`` or ``module``; :data:`ABSENT` if there is no such attribute or module."""
    module, _, attribute = name.partition(":")
    if not attribute:
        exists = module in sys.modules or importlib.util.find_spec(module) is not None
        return importlib.import_module(module) if exists else ABSENT
    owner, last = _owner(name)
    return getattr(owner, last, ABSENT)


def put(name: str, value: Any) -> None:
    """Makes `value` stand at the name; :data:`ABSENT` removes the name."""
    if ":" not in name:
        if value is ABSENT:
            del sys.modules[name]
        else:
            sys.modules[name] = value
        return
    owner, last = _owner(name)
    if value is ABSENT:
        delattr(owner, last)
    else:
        setattr(owner, last, value)


def _owner(name: str) -> tuple[ModuleType | type, str]:
    """The module or class that holds the last part of ``module:attribute``, and that part."""
    module, _, attribute = name.partition(":")
    owner: Any = importlib.import_module(module)  # a package's attribute may hide its submodule of the same name
    *path, last = attribute.split(".")
    for part in path:
        owner = getattr(owner, part)
    return owner, last
