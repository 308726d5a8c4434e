"""The sentence of the demo about what was learned."""

from __future__ import annotations

import numpy as np
import torch

from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from tools.study.demo.scores import what_was_learned

PEOPLE, OUTFITS, CAMERAS = 3, 2, 2


def sides(clothes_weight: float, body_weight: float) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Query and gallery of three people in two outfits: one direction per outfit, and one per person."""
    rows = [
        (person, outfit, camera) for person in range(PEOPLE) for outfit in range(OUTFITS) for camera in range(CAMERAS)
    ]
    features = torch.zeros(len(rows), PEOPLE * OUTFITS + PEOPLE)
    for row, (person, outfit, _) in enumerate(rows):
        features[row, person * OUTFITS + outfit] = clothes_weight
        features[row, PEOPLE * OUTFITS + person] = body_weight
    person, outfit, camera = np.array(rows).T
    clothes = person * OUTFITS + outfit
    query, gallery = (
        LabelledFeatures(
            features[camera == side], person[camera == side], camera[camera == side], clothes[camera == side]
        )
        for side in range(CAMERAS)
    )
    return query, gallery


def test_clothes_and_what_stays_are_told_apart() -> None:
    """Each match stands alone against four pictures of others; its chance is (1 + 1/2 + 1/3 + 1/4 + 1/5) / 5 = 0.4567.

    The method finds every match first: 54.33 points above chance by the body, nothing by clothes.
    """
    sentence = what_was_learned(sides(1.0, 0.5), sides(0.0, 1.0))
    assert "0.0 points above chance without guidance and 0.0 with it" in sentence
    assert sentence.endswith("54.33 and 54.33.")


def test_a_model_of_clothes_alone_has_no_body() -> None:
    """A match in other clothes is as far away as all pictures of others: its score is chance."""
    sentence = what_was_learned(sides(1.0, 0.0), sides(1.0, 0.5))
    assert "clothes are worth 54.3 points above chance without guidance and 0.0 with it" in sentence
    assert sentence.endswith("0.00 and 54.33.")
