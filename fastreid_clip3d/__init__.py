"""CLIP3DReID (CVPR 2024) as a plug-in to fast-reid: importing this package registers the method with fast-reid."""

from __future__ import annotations

from . import compat

compat.apply()

from .config import add_clip3d_config, get_cfg  # noqa: E402

__all__ = ["add_clip3d_config", "get_cfg"]
__version__ = "0.1.0"
