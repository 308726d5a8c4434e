"""Meta-architectures that fast-reid lacks."""

from .clip3d_reid import CLIP3DReID

__all__ = ["CLIP3DReID"]
