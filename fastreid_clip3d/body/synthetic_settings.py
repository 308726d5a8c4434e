"""The settings of a SyntheticBodies set."""

from __future__ import annotations

from dataclasses import dataclass

from fastreid_clip3d.body.constants import Framing
from fastreid_clip3d.body.rendering import (
    check_framing,
)
from fastreid_clip3d.errors import ClearError


@dataclass(frozen=True)
class SyntheticSettings:
    """What a set is made of; two sets with equal settings hold the same bytes."""

    bodies: int = 1000  # even ones are female, odd ones male (the paper: 500 and 500)
    poses_per_body: int = 10  # pictures of each body, each in another pose while the pool lasts
    image_size: tuple[int, int] = (256, 128)  # height and width in pixels
    framing: Framing = "crop"  # see constants.FRAMINGS
    seed: int = 0  # of shapes, poses, cameras and lights
    grey: float = 0.75  # reflectance of the body, 0..1
    background: float = 1.0  # value of the background, 0..1
    body_model: str = ""  # folder or file of a body model, "" for the embedded one
    poses: str = ""  # file of poses, "" for the built-in pool

    def __post_init__(self) -> None:
        for name in ("bodies", "poses_per_body"):
            if getattr(self, name) < 1:
                raise ClearError(f"{name} is {getattr(self, name)}: at least 1 is needed")
        if len(self.image_size) != 2 or min(self.image_size) < 8 or max(self.image_size) > 4096:
            raise ClearError(f"image size {tuple(self.image_size)}: give height and width, each 8 to 4096 pixels")
        if not 0 <= self.seed < 2**63:
            raise ClearError(f"seed {self.seed}: give a number from 0 to 2**63 - 1")
        check_framing(self.framing)

    @property
    def num_images(self) -> int:
        """N."""
        return self.bodies * self.poses_per_body
