"""Losses, heads, backbones and the meta-architecture; importing this package registers them with fast-reid."""

from fastreid_clip3d.modeling import backbones, heads, meta_arch

__all__ = ["backbones", "heads", "meta_arch"]
