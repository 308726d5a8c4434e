"""The leakage checks pass on SynthCC and find leaks that are put into it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tools.study import leakage


@pytest.fixture(scope="module")
def shape_only():
    return leakage.collect(16, 3, "shape-only", size=(64, 32))


@pytest.fixture(scope="module")
def natural():
    return leakage.collect(8, 3, "natural", size=(64, 32))


def test_only_the_body_identifies_a_person_in_shape_only(shape_only):
    checks = leakage.check_samples(shape_only, "shape-only")
    assert {check.what.split(",")[0] for check in checks} == {
        "background",
        "skin and hair colour",
        "own pixels' colours",
    }
    assert all(check.passed for check in checks), leakage.report(checks)


def test_colours_find_the_same_clothes_and_not_other_clothes(shape_only):
    colour = {
        check.protocol: check
        for check in leakage.check_samples(shape_only, "shape-only")
        if check.what.startswith("own")
    }
    assert colour["SC"].value > 4 * colour["CC"].value
    assert colour["CC"].value < 2 * colour["CC"].chance


def test_the_check_sees_skin_and_hair_where_they_stay_the_same(natural):
    checks = {check.what: check for check in leakage.check_samples(natural, "natural")}
    assert checks["skin and hair colour, classifier"].value > 3 * checks["skin and hair colour, classifier"].chance


def test_the_check_finds_a_background_that_identifies_the_person(shape_only):
    tint = np.random.default_rng(0).integers(-60, 60, (16, 3))[np.unique(shape_only.pid, return_inverse=True)[1]]
    outside = (shape_only.parts == 255)[:, None]
    images = np.clip(shape_only.images + tint[:, :, None, None] * outside, 0, 255).astype(np.uint8)
    checks = leakage.check_samples(dataclasses.replace(shape_only, images=images), "shape-only")
    assert not next(check for check in checks if check.what == "background, classifier").passed
