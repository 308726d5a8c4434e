"""A set of synthetic bodies in a second: small population for the labels, three poses of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastreid_clip3d.body import population_descriptors
from fastreid_clip3d.body.descriptors import population_statistics
from fastreid_clip3d.body.synthetic_index import SyntheticIndex
from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
from fastreid_clip3d.body.synthetic_writer import SyntheticSet


def render_few_bodies(folder: Path, bodies: int, poses_per_body: int, image_size: tuple[int, int]) -> SyntheticIndex:
    """Renders them; labels compare each body with 20 others only."""
    folder.mkdir(parents=True, exist_ok=True)
    poses = folder.parent / f"{folder.name}_poses.npy"
    np.save(poses, np.random.default_rng(0).uniform(-0.2, 0.2, (3, 72)).astype(np.float32))
    settings = SyntheticSettings(bodies=bodies, poses_per_body=poses_per_body, image_size=image_size, poses=str(poses))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            population_descriptors, "population_statistics", lambda model: population_statistics(model, count=20)
        )
        return SyntheticSet(folder, settings, workers=1).make(progress=False)
