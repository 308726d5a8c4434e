"""What the synthetic bodies looked like when their FORMAT was last raised; `test_golden.py` compares it with today's.

`python -m tests.body.golden` writes the file beside this module anew. Do that only together with a raised `FORMAT` in
`fastreid_clip3d/body/synthetic_writer.py`: rendered sets of the old number are then another version.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np

from fastreid_clip3d.body.poses import load_pose_pool
from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
from fastreid_clip3d.body.synthetic_writer import SyntheticSet

EXPECTED = Path(__file__).with_name("golden_bodies.npz")
BLOCK = 8
"""Pixels per side of the squares whose mean grey value is kept."""


def bodies() -> dict[str, np.ndarray]:
    """Numbers and small pictures of two small sets, one for each framing, and the built-in pool of poses."""
    found = {"pose pool": load_pose_pool().numpy()}
    for framing in ("crop", "fixed"):
        with tempfile.TemporaryDirectory() as folder:
            settings = SyntheticSettings(bodies=8, poses_per_body=3, image_size=(96, 48), framing=framing, seed=5)
            index = SyntheticSet(folder, settings, workers=1).make(progress=False)
            images = np.stack([cv2.imread(path, cv2.IMREAD_UNCHANGED) for path in index.paths])
        blocks = images.reshape(len(images), 96 // BLOCK, BLOCK, 48 // BLOCK, BLOCK).astype(np.float64)
        found[f"pictures {framing}"] = np.rint(blocks.mean((2, 4)) * 16).astype(np.uint16)  # sixteenths of a level
        for name in ("betas", "gender", "phrase_choices", "scores", "poses", "cameras", "lights"):
            found[f"{name} {framing}"] = getattr(index, name)
        found[f"files {framing}"] = np.array([Path(path).name for path in index.paths])
    return found


if __name__ == "__main__":
    np.savez_compressed(EXPECTED, **bodies())
    print(EXPECTED)
