"""What grey bodies in scenes looked like when their FORMAT was last raised; `test_grey_bodies.py` compares it.

`python -m tests.synthcc.golden_grey_bodies` writes the file beside this module anew. Do that only together with a
raised `FORMAT` in `fastreid_clip3d/synthcc/grey_bodies.py`: rendered sets of the old number are then another version.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastreid_clip3d.body.constants import FRAMINGS
from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
from fastreid_clip3d.common.threads import one_thread
from fastreid_clip3d.synthcc.grey_bodies import GreyBodiesInScenes
from tests.synthcc.golden import block_means

EXPECTED = Path(__file__).with_suffix(".npz")


def pictures() -> dict[str, np.ndarray]:
    """Mean colours of squares of eight pictures in each framing, and their cameras and lights."""
    found = {}
    with one_thread():
        for framing in FRAMINGS:
            settings = SyntheticSettings(bodies=2, poses_per_body=4, image_size=(96, 48), framing=framing, seed=5)
            bodies = GreyBodiesInScenes("unused", settings)
            images, cameras, lights = (np.concatenate(parts) for parts in zip(*map(bodies.render_body, range(2))))
            found |= {f"pictures {framing}": block_means(images), f"cameras {framing}": cameras}
            found[f"lights {framing}"] = lights
    return found


if __name__ == "__main__":
    np.savez_compressed(EXPECTED, **pictures())
    print(EXPECTED)
