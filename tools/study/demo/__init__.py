"""The stages of ``make demo``: render data, train the baseline and CLIP3DReID, compare them."""

from tools.study.demo.stages import Demo

__all__ = ["Demo"]
