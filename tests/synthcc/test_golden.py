"""SynthCC still draws and renders what its FORMAT number stands for."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tests.synthcc import golden

REMEDY = (
    "If you meant this, raise FORMAT in fastreid_clip3d/synthcc/plan.py and update the expectations with "
    "`python -m tests.synthcc.golden`."
)
# Measured with the vector instructions of torch, NumPy and MKL switched off: at most 1/16 level in any square. One
# level is what a single pixel of a square makes where a silhouette falls on the other side of a pixel's centre.
LARGEST, MEAN, PIXELS = 1.0, 0.02, 2


@pytest.fixture(scope="module")
def rendered() -> dict[str, np.ndarray]:
    return golden.pictures()


@pytest.mark.parametrize("name", list(np.load(golden.PICTURES)))
def test_rendered_pixels_are_those_of_this_format(rendered, name):
    with np.load(golden.PICTURES) as file:
        expected = file[name].astype(np.float64)
    assert rendered[name].shape == expected.shape
    difference = np.abs(rendered[name].astype(np.float64) - expected)
    if name.startswith("parts"):
        assert difference.max() <= PIXELS, f"{name}: rendered pixels changed by {difference.max():.0f} pixels. {REMEDY}"
        return
    levels = difference if name == "patterns" else difference / 16
    worst = np.unravel_index(levels.argmax(), levels.shape)[0]
    assert levels.max() <= LARGEST and levels.mean() <= MEAN, (
        f"{name}: rendered pixels changed by up to {levels.max():.2f} of 255 levels (number {worst}), "
        f"{levels.mean():.4f} on average. {REMEDY}"
    )


def test_drawn_people_outfits_and_cameras_are_those_of_this_format():
    # Exact but for exp and log, whose last bit other processors may round differently.
    expected = json.loads(golden.PARAMETERS.read_text())
    changed = list(_changes("", expected, json.loads(json.dumps(golden.parameters()))))
    assert not changed, f"drawn parameters changed, rendered pixels with them: {'; '.join(changed[:5])}. {REMEDY}"


def test_the_expectations_see_every_table():
    """Every kind of garment, hair, pattern, camera effect and part is among what is compared."""
    from fastreid_clip3d.synthcc.camera import CAMERAS
    from fastreid_clip3d.synthcc.garments import NUM_PARTS
    from fastreid_clip3d.synthcc.person import ALL_STYLES
    from fastreid_clip3d.synthcc.wardrobe import PATTERNS

    stored = json.loads(golden.PARAMETERS.read_text())
    for name, words in (
        ("outfit.top.cloth.pattern", set(PATTERNS)),
        ("look.style", set(ALL_STYLES)),
        ("outfit.top.neck", {"crew", "v", "scoop", "turtle", "collar"}),
        ("outfit.hat.kind", {"cap", "beanie", "brim"}),
        ("outfit.bag.kind", {"backpack", "sling", "hand"}),
    ):
        assert {key.split(" = ")[1] for key in stored["counts"] if key.startswith(f"{name} = ")} == words
    assert {shot["camera"] for shot in stored["images"]} == set(range(len(CAMERAS)))
    with np.load(golden.PICTURES) as file:
        seen = sum(file[name].sum(0) for name in file.files if name.startswith("parts"))
    assert (seen[:NUM_PARTS] > 0).all()


def _changes(name: str, old: Any, new: Any):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _changes(f"{name}.{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, pair in enumerate(zip(old, new)):
            yield from _changes(f"{name}.{place}", *pair)
    elif isinstance(old, float) and isinstance(new, float):
        if not math.isclose(old, new, rel_tol=1e-9, abs_tol=1e-12):
            yield f"{name[1:]} was {old}, now {new}"
    elif old != new:
        yield f"{name[1:]} was {old}, now {new}"
