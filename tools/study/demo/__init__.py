"""The main job on embedded data: what ``make demo`` does, stage by stage."""

from tools.study.demo.stages import Demo

__all__ = ["Demo"]
