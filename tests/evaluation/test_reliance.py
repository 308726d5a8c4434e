"""The parts of a score: against one match at a time, on features that know one thing only, and by resampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from fastreid_clip3d.evaluation.reliance import (
    PARTS,
    Estimate,
    PersonScores,
    Reliance,
    divide,
    person_scores,
    scores_with_chance,
)
from fastreid_clip3d.synthcc.person import Variant
from fastreid_clip3d.synthcc.plan import TINY, ImagePlan, plan_person, sample_clothes
from tests.evaluation.test_calibration import labelled
from tests.references import reliance as reference
from tests.references.calibration import cosine

PEOPLE = 25


def items(generator: np.random.Generator, cameras: tuple[int, ...]) -> list[dict]:
    """Four people in two outfits; one person lacks a picture."""
    found = [
        {"pid": person, "camid": camera, "clothes": 2 * person + outfit, "feature": generator.normal(size=3).tolist()}
        for person in range(4)
        for outfit in range(2)
        for camera in cameras
    ]
    return found[:-1]


def set_of_items(seed: int) -> tuple[list[dict], list[dict], list[list[float]]]:
    generator = np.random.default_rng(seed)
    queries, gallery = items(generator, (0,)), items(generator, (0, 1, 2))
    distances = [[1 - cosine(query["feature"], item["feature"]) for item in gallery] for query in queries]
    return queries, gallery, distances


def test_parts_are_those_of_one_match_at_a_time() -> None:
    found, expected = [], []
    for seed in (0, 1):
        queries, gallery, distances = set_of_items(seed)
        found.append(person_scores(labelled(queries), labelled(gallery)))
        expected.append(reference.query_scores(queries, gallery, distances))
    parts = divide(*found, resamples=10).parts
    assert {name: part.value for name, part in parts.items()} == pytest.approx(reference.parts(*expected), abs=1e-8)


def test_the_interval_is_that_of_people_drawn_by_hand() -> None:
    """Two people with scores 0 and 1 by SC: a resample has the mean 0, 1/2 or 1, with 1/4, 1/2 and 1/4."""
    natural = PersonScores(np.array([3, 5]), np.array([[0.0, 2.0], [0.0, 0.5]]), np.array([[2, 2], [1, 1]]), 0.1)
    bare = PersonScores(natural.people, np.array([[0.0, 0.0], [0.0, 0.5]]), natural.counts, 0.1)
    found = divide(natural, bare, resamples=400)
    assert found.total == Estimate(0.5, 0.0, 1.0)
    assert found.parts["clothes"] == Estimate(0.25, 0.0, 0.5)
    # both renderings are resampled alike, so a difference that is 0 for each person has no width
    assert found.parts["skin and hair"] == Estimate(0.0, 0.0, 0.0)
    assert {name: share.value for name, share in found.shares.items()} == {
        "clothes": 0.5,
        "skin and hair": 0.0,
        "shape": 0.5,
    }
    assert divide(natural, bare, seed=1, resamples=400) == divide(natural, bare, seed=1, resamples=400)
    assert (found.people, found.resamples) == (2, 400)


def test_a_negative_part_is_reported_and_has_no_share() -> None:
    people, counts = np.array([1, 2]), np.ones((2, 2), dtype=np.int64)
    natural = PersonScores(people, np.array([[0.5, 0.5], [0.1, 0.1]]), counts, 0.0)
    found = divide(natural, PersonScores(people, np.array([[0.0, 0.0], [0.2, 0.2]]), counts, 0.0), resamples=5)
    assert [round(part.value, 6) for part in found.parts.values()] == [0.4, -0.1, 0.2]
    assert [round(share.value, 6) for share in found.shares.values()] == [0.666667, 0.0, 0.333333]
    assert "Not clearly above zero: skin and hair." in found.sentence("it")
    assert "| skin and hair | -10.00" in found.table()


def test_other_people_or_no_match_is_refused() -> None:
    one = PersonScores(np.array([1]), np.ones((2, 1)), np.ones((2, 1), dtype=np.int64), 0.0)
    other = PersonScores(np.array([2]), one.totals, one.counts, 0.0)
    with pytest.raises(ClearError, match="same people. Render both with the same seed"):
        divide(one, other)
    with pytest.raises(ClearError, match="No query has a match in the same clothes"):
        divide(one, PersonScores(one.people, one.totals, np.array([[1], [0]]), 0.0))
    query, gallery = (labelled(side) for side in set_of_items(0)[:2])
    query.clothes_ids = None
    with pytest.raises(ClearError, match="at least two people; there is 1"):
        divide(one, one)
    with pytest.raises(ClearError, match="only with clothes ids"):
        person_scores(query, gallery)


def features_of(plans: list[ImagePlan], variant: Variant, knows: str, generator: np.random.Generator) -> torch.Tensor:
    """What a model would see that knows one thing only, and that with noise; float64 [N, D]."""
    rows = []
    for plan in plans:
        look, outfit = sample_clothes(TINY.seed, plan.person, plan.outfit, variant)
        garments = (outfit.top, outfit.outer, outfit.legs, outfit.skirt)
        cloths = [[0.0] * 9 if garment is None else garment.cloth.colours.ravel() - 0.4 for garment in garments]
        skin = np.array([*look.skin, *look.hair]) - 0.4
        seen = {"shape": plan.person.betas, "clothes": np.concatenate(cloths), "skin": skin}
        noise = {"shape": 0.6, "clothes": 0.05, "skin": 0.05}
        rows.append(np.asarray(seen[knows]) + noise[knows] * generator.normal(size=len(seen[knows])))
    return torch.from_numpy(np.stack(rows))


def oracle(knows: str) -> tuple[Reliance, list[tuple[LabelledFeatures, LabelledFeatures]]]:
    """Divides the score of such a model on SynthCC-tiny's plan of `PEOPLE` test people; nothing is drawn."""
    people = range(TINY.train_people, TINY.train_people + PEOPLE)
    plans = [plan for number in people for plan in plan_person(TINY, "test", number, 5)]
    generator = np.random.default_rng(0)
    sides, found = [], []
    for variant in ("natural", "shape-only"):
        query, gallery = (
            LabelledFeatures(
                features_of(own, variant, knows, generator),
                np.array([plan.person.number for plan in own]),
                np.array([plan.shot.camera for plan in own]),
                np.array([plan.clothes_id for plan in own]),
            )
            for own in ([plan for plan in plans if plan.split == split] for split in ("query", "gallery"))
        )
        sides.append((query, gallery))
        found.append(person_scores(query, gallery))
    return divide(*found, resamples=200), sides


@pytest.mark.parametrize(("knows", "part"), [("shape", "shape"), ("clothes", "clothes"), ("skin", "skin and hair")])
def test_a_model_that_knows_one_thing_is_called_by_it(knows: str, part: str) -> None:
    found, _ = oracle(knows)
    assert found.parts[part].low > 0.1
    assert found.shares[part].value > 0.9
    for other in set(PARTS) - {part}:
        assert abs(found.parts[other].value) < 0.05, other
        assert found.parts[other].low < 0.02, other
    assert found.sentence("The oracle").startswith(f"The oracle matches mostly {part}: ")
    assert math.isclose(sum(one.value for one in found.parts.values()), found.total.value, abs_tol=1e-8)


def test_map_would_call_noisy_shape_the_opposite_of_clothes() -> None:
    """Why matches are scored alone: CC has more matches than SC, and so a higher mAP for the same features."""
    _, sides = oracle("shape")
    scores = scores_with_chance(*sides[0])
    above = {name: own["mAP"] - own["chance"] for name, own in scores.items()}
    assert above["CC"] - above["SC"] > 5


def test_features_that_know_nothing_are_called_so() -> None:
    query, gallery = (labelled(side) for side in set_of_items(0)[:2])
    for side in (query, gallery):
        side.features = torch.ones(len(side), 3)
    scores = person_scores(query, gallery)
    found = divide(scores, scores, resamples=20)
    assert found.total == Estimate(0.0, 0.0, 0.0)
    assert found.shares["shape"] == Estimate(None, None, None)
    assert "no better than chance" in found.sentence("it")
    assert "| shape         | 0.00" in found.table() and "| -" in found.table()
    assert all(own["mAP"] == own["chance"] for own in scores_with_chance(query, gallery).values())
