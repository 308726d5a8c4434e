"""The main job on embedded data: what ``make demo`` does, stage by stage."""

from .stages import Demo

__all__ = ["Demo"]
