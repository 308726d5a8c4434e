"""Students that fast-reid lacks, and one way to build every student with its weights checked."""

from .mobilenetv2 import build_mobilenetv2_last_stride_backbone

__all__ = ["build_mobilenetv2_last_stride_backbone"]
