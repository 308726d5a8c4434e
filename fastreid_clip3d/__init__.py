"""CLIP3DReID (CVPR 2024) as a plug-in to fast-reid: importing this package registers the method with fast-reid."""

from __future__ import annotations

from typing import Any

from fastreid_clip3d import compat

compat.apply()  # before anything imports fast-reid

from fastreid_clip3d import modeling  # noqa: E402, F401  (registers heads, backbones and the meta-architecture)
from fastreid_clip3d.config import add_clip3d_config, get_cfg  # noqa: E402
from fastreid_clip3d.data import datasets  # noqa: E402, F401  (registers the datasets)

__all__ = ["add_clip3d_config", "get_cfg", "load_model"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load_model":  # what only using a model needs is imported when it is asked for
        from fastreid_clip3d.inference import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
