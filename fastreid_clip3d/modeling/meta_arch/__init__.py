"""Meta-architectures that fast-reid lacks."""

from fastreid_clip3d.modeling.meta_arch.clip3d_reid import CLIP3DReID

__all__ = ["CLIP3DReID"]
