"""Where fast-reid comes from: a git checkout named by ``FASTREID_HOME``, or the installed package.

The checkout is not put on ``sys.path``: its top-level folders ``tests``, ``tools``, ``configs`` and ``demo`` would
shadow ours. Only the package ``fastreid`` itself is taken from it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys

ENVIRONMENT_VARIABLE = "FASTREID_HOME"


class FastReIDNotFound(ImportError):
    """fast-reid is neither installed nor at the place that ``FASTREID_HOME`` names."""


def make_importable() -> None:
    """Makes ``import fastreid`` work, from the checkout if one is named.

    Raises:
        FastReIDNotFound: with the way to get fast-reid.
    """
    checkout = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if "fastreid" in sys.modules:
        return
    if checkout:
        _import_from_checkout(os.path.abspath(os.path.expanduser(checkout)))
    elif importlib.util.find_spec("fastreid") is None:
        raise FastReIDNotFound(
            "fast-reid is not installed. Run `pip install --no-deps fastreid==1.4.0` (its own pin on torch 1.13 does "
            f"not matter here), or set {ENVIRONMENT_VARIABLE} to the folder of a git checkout of fast-reid."
        )


def _import_from_checkout(folder: str) -> None:
    spec = importlib.machinery.PathFinder.find_spec("fastreid", [folder])
    if spec is None or spec.loader is None:
        raise FastReIDNotFound(
            f"{ENVIRONMENT_VARIABLE}={folder} holds no package 'fastreid': name the folder that contains the folder "
            "'fastreid', as `git clone` made it."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules["fastreid"] = module
    spec.loader.exec_module(module)
