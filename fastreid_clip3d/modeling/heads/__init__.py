"""Heads that fast-reid lacks."""

from .mlp_head import MLPHead

__all__ = ["MLPHead"]
