"""Heads that fast-reid lacks."""

from fastreid_clip3d.modeling.heads.mlp_head import MLPHead

__all__ = ["MLPHead"]
