"""Losses, heads, backbones and the meta-architecture; importing this package registers them with fast-reid."""

from . import heads, meta_arch

__all__ = ["heads", "meta_arch"]
