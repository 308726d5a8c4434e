"""SynthCC: rendered people who change their clothes, a benchmark made of free parts and no person's photograph.

A person (:mod:`person`) gets an outfit (:mod:`outfit`), whose garments are cut from the body's own surface
(:mod:`garments`,
:mod:`dressing`), is posed (:mod:`posing`) and photographed by one of eight cameras (:mod:`camera`) before a
procedural scene
(:mod:`background`, :mod:`render`). :mod:`plan` says who is in which split, :mod:`generate` writes a set.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "FULL": "plan",
    "SETS": "plan",
    "TINY": "plan",
    "SetConfig": "plan",
    "version_of": "plan",
    "generate_set": "generate",
    "sample_people": "generate",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    # Submodules and names are imported when first asked for: reading a set needs none of the renderer.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
