"""Registers the method with fast-reid: first fast-reid is made to run here, then its registries learn our parts."""

from __future__ import annotations

import gc
import os
import sys

COMMAND = "clip3d"
_registered = False


def register() -> None:
    """Patches fast-reid where this machine needs it; registers our backbones, heads, meta-architecture and datasets."""
    global _registered
    if _registered:
        return
    collects = gc.isenabled()
    gc.disable()  # torch and fast-reid make a million objects that stay; collections in between find nothing
    try:
        from fastreid_clip3d import compat

        compat.apply()  # before any module of ours imports fast-reid

        from fastreid_clip3d import modeling  # noqa: F401
        from fastreid_clip3d.data import datasets, fastreid_loaders  # noqa: F401
    finally:
        if collects:
            gc.enable()
    _registered = True


def started_as_command() -> bool:
    """Whether this interpreter runs the command ``clip3d`` (or ``python -m fastreid_clip3d``).

    The command answers ``--help`` without torch and fast-reid; it calls :func:`register` itself before a verb runs. A
    process that the command starts has another command line, so it registers when it imports the package.
    """
    words = sys.orig_argv[1:]
    while words and words[0].startswith("-") and words[0] != "-m":
        has_value = words[0] in ("-X", "-W")  # as separate words: python -X importtime -m ...
        words = words[2 if has_value else 1 :]
    if words[:2] == ["-m", __package__]:
        return True
    return bool(words) and os.path.splitext(os.path.basename(words[0]))[0] == COMMAND
