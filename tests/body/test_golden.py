"""The synthetic bodies are still those that their FORMAT number stands for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.body import golden

REMEDY = (
    "If you meant this, raise FORMAT in fastreid_clip3d/body/synthetic_writer.py and update the expectations with "
    "`python -m tests.body.golden`."
)
# What is drawn or copied is exact. Cameras (fitted to the posed body), poses and scores are computed in float32: with
# the vector instructions of torch, NumPy and MKL switched off, cameras differed by 3e-6, scores by 1e-6, the rest by 0.
# 64 sixteenths of a level are what one pixel of a square makes that turns from body to background.
TOLERANCES = {"pictures": 64.0, "cameras": 1e-4, "lights": 1e-6, "pose": 1e-5, "poses": 1e-5, "scores": 1e-4}


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    return golden.bodies()


@pytest.mark.parametrize("name", list(np.load(golden.EXPECTED)))
def test_bodies_and_pictures_are_those_of_this_format(made, name):
    with np.load(golden.EXPECTED) as file:
        expected = file[name]
    assert made[name].shape == expected.shape and made[name].dtype == expected.dtype
    tolerance = TOLERANCES.get(name.split()[0])
    if tolerance is None:
        assert (made[name] == expected).all(), f"{name} changed, and rendered pixels with it. {REMEDY}"
        return
    difference = np.abs(made[name].astype(np.float64) - expected.astype(np.float64))
    assert difference.max() <= tolerance, f"rendered pixels changed: {name} by up to {difference.max():.6g}. {REMEDY}"
    if name.startswith("pictures"):
        assert difference.mean() / 16 <= 0.02, f"rendered pixels changed: {name} on average. {REMEDY}"
