"""CLIP3DReID (CVPR 2024) as a plug-in to fast-reid: importing this package registers the method with fast-reid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastreid_clip3d.common.parent_death import end_at_once_with_parent
from fastreid_clip3d.registration import register, started_as_command

if TYPE_CHECKING:
    from fastreid_clip3d.config import add_clip3d_config, get_cfg
    from fastreid_clip3d.inference import load_model

__all__ = ["add_clip3d_config", "get_cfg", "load_model"]
__version__ = "0.1.0"

if not started_as_command():
    end_at_once_with_parent()
    register()


def __getattr__(name: str) -> Any:
    """The public functions; each is imported when it is first asked for."""
    if name in ("add_clip3d_config", "get_cfg"):
        register()
        from fastreid_clip3d import config

        return getattr(config, name)
    if name == "load_model":
        register()
        from fastreid_clip3d.inference import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
