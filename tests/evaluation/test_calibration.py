"""Calibration: rates against a slow reference, thresholds, intervals, the files and what a comparison says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.calibration import (
    calibrate,
    compare_similarity,
    read_calibration,
    write_calibration,
)
from fastreid_clip3d.evaluation.calibration_plot import plot_calibration
from fastreid_clip3d.evaluation.error_rates import (
    THRESHOLDS,
    PairSource,
    count_pairs,
    intervals,
    wilson,
)
from fastreid_clip3d.evaluation.protocols import CC, GENERAL, SC, Protocol
from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from tests.references import calibration as reference


def random_items(rng: np.random.Generator, count: int, dims: int, ties: bool) -> list[dict]:
    people = int(rng.integers(1, 5))
    items = []
    for _ in range(count):
        pid = int(rng.integers(0, people))
        feature = rng.integers(-1, 2, dims) if ties else rng.standard_normal(dims)
        clothes = pid * 10 + int(rng.integers(0, 2))
        items.append({"pid": pid, "camid": int(rng.integers(0, 3)), "clothes": clothes, "feature": feature.tolist()})
    if ties and count > 2:
        items[1]["feature"] = items[0]["feature"]
    return items


def labelled(items: list[dict]) -> LabelledFeatures:
    return LabelledFeatures(
        torch.tensor([item["feature"] for item in items], dtype=torch.float64),
        *(np.array([item[key] for item in items]) for key in ("pid", "camid", "clothes")),
    )


@pytest.mark.parametrize("seed", range(100))
def test_rates_and_thresholds_are_those_of_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dims, ties = int(rng.integers(2, 5)), seed % 2 == 0
    queries, gallery = (random_items(rng, int(rng.integers(1, 12)), dims, ties) for _ in range(2))
    protocol = (GENERAL, CC, SC)[seed % 3]
    asked = float(rng.choice([0.01, 0.1, 0.25, 0.5]))
    genuine, impostor = reference.pairs(protocol.rule, queries, gallery)
    counts = count_pairs(PairSource(labelled(queries), labelled(gallery), [protocol]))[protocol.name]
    assert (counts.num_genuine, counts.num_impostor) == (len(genuine), len(impostor))
    if not genuine or not impostor:
        return
    found = calibrate(labelled(queries), labelled(gallery), [protocol], "f", "d", asked).protocols[protocol.name]
    expected = reference.recommended(genuine, impostor, asked)
    assert (found.recommended.threshold if found.recommended else None) == expected
    for threshold, *both in zip(found.thresholds, found.false_match_rate, found.false_non_match_rate):
        assert both == pytest.approx(reference.rates(genuine, impostor, threshold), abs=1e-12)
    for threshold in (-1.0, -0.5, 0.0, 0.5, 1.0, *rng.uniform(-1, 1, 5).round(5)):
        place = int(np.abs(THRESHOLDS - threshold).argmin())
        both = counts.false_matches[place] / len(impostor), counts.false_non_matches[place] / len(genuine)
        assert both == pytest.approx(reference.rates(genuine, impostor, threshold), abs=1e-12)


def random_features(seed: int = 0, people: int = 20, each: int = 6, spread: float = 0.7) -> LabelledFeatures:
    rng = np.random.default_rng([seed, people])
    centres = np.random.default_rng(1).standard_normal((people, 8))
    pids = np.repeat(np.arange(people), each)
    features = centres[pids] + spread * rng.standard_normal((len(pids), 8))
    camids, clothes = rng.integers(0, 3, len(pids)), pids * 2 + rng.integers(0, 2, len(pids))
    return LabelledFeatures(torch.tensor(features, dtype=torch.float32), pids, camids, clothes)


def test_blocks_of_queries_change_nothing() -> None:
    query, gallery = random_features(0), random_features(1)
    whole = PairSource(query, gallery, [CC])
    parts = PairSource(query, gallery, [CC], max_memory=0.05)
    assert parts._step < 10 < whole._step
    one, other = count_pairs(whole)["CC"], count_pairs(parts)["CC"]
    assert np.array_equal(one.genuine, other.genuine) and np.array_equal(one.impostor, other.impostor)
    assert intervals(whole, {"CC": 150_000}, draws=50) == intervals(parts, {"CC": 150_000}, draws=50)


def test_protocols_restricted_to_cameras_and_people_count_only_theirs() -> None:
    query, gallery = random_features(0), random_features(1)
    protocol = Protocol("few", "nothing", frozenset({0}), frozenset({1, 2}), frozenset(range(7)))
    counts = count_pairs(PairSource(query, gallery, [protocol]))["few"]
    asked = (query.camids == 0) & (query.pids < 7)
    shown = (gallery.camids > 0) & (gallery.pids < 7)
    same = (query.pids[asked][:, None] == gallery.pids[shown][None]).sum()
    assert (counts.num_genuine, counts.num_impostor) == (same, asked.sum() * shown.sum() - same)


def test_intervals_hold_the_rate_and_are_those_of_people_drawn_one_by_one() -> None:
    query, gallery = random_features(0, people=12), random_features(1, people=12)
    pairs = PairSource(query, gallery, [GENERAL])
    calibration = calibrate(query, gallery, [GENERAL], "f", "d", 0.05)
    chosen = calibration.protocols["general"].recommended
    place = int(np.abs(THRESHOLDS - chosen.threshold).argmin())
    assert chosen.false_match_interval[0] < chosen.false_match_rate < chosen.false_match_interval[1]
    assert chosen.false_non_match_interval[0] <= chosen.false_non_match_rate <= chosen.false_non_match_interval[1]

    weights = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=40)
    cosines = torch.nn.functional.cosine_similarity(query.features[:, None], gallery.features[None], dim=2).numpy()
    same = query.pids[:, None] == gallery.pids[None]
    counted = same & (query.camids[:, None] != gallery.camids[None])
    shares = []
    for weight in weights:
        often = weight[query.pids][:, None] * weight[gallery.pids][None]
        over = cosines >= chosen.threshold
        genuine = weight[query.pids][:, None] * counted
        shares.append([(often * (over & ~same)).sum() / (often * ~same).sum(), (genuine * ~over).sum() / genuine.sum()])
    expected = np.quantile(np.array(shares), (0.025, 0.975), axis=0).T
    found = intervals(pairs, {"general": place}, draws=40, seed=3)["general"]
    assert found["false_match_rate"] == pytest.approx(expected[0], abs=1e-9)
    assert found["false_non_match_rate"] == pytest.approx(expected[1], abs=1e-9)


def test_intervals_without_a_wrong_pair_come_from_the_number_of_people() -> None:
    query, gallery = random_features(0, people=10, spread=0.01), random_features(1, people=10, spread=0.01)
    chosen = calibrate(query, gallery, [GENERAL], "f", "d", 1e-5).protocols["general"].recommended
    assert chosen.false_match_rate == 0 and chosen.false_match_interval == wilson(0, 90)
    assert 0.03 < chosen.false_match_interval[1] < 0.05


def test_wilson_by_hand() -> None:
    assert wilson(1, 10) == pytest.approx((0.0179, 0.4041), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_too_few_pairs_for_the_asked_rate_are_reported() -> None:
    query, gallery = random_features(0), random_features(1)
    few = calibrate(query, gallery, [GENERAL], "f", "d", 1e-6).protocols["general"]
    assert few.recommended.false_match_rate == 0 and "1e-06" in few.notes[0]
    assert f"{few.impostor_pairs:,}" in few.notes[0]
    assert "largely chance" in calibrate(query, gallery, [GENERAL], "f", "d", 1e-3).protocols["general"].notes[0]
    assert not calibrate(query, gallery, [GENERAL], "f", "d", 1e-2).protocols["general"].notes


def test_copies_under_two_people_leave_no_strict_threshold(tmp_path: Path) -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    query = LabelledFeatures(features, np.array([0, 1, 2]), np.zeros(3, int))
    gallery = LabelledFeatures(features, np.array([0, 1, 2]), np.ones(3, int))
    calibration = calibrate(query, gallery, [GENERAL], "f", "d", 0.1)
    rates = calibration.protocols["general"]
    assert rates.recommended is None and "two names" in rates.notes[-1]
    said = compare_similarity(1.0, read_calibration(write_calibration(tmp_path, calibration), "f"))
    assert said.same_person is None and "no verdict" in said.sentence
    plot_calibration(tmp_path, calibration)


def test_what_cannot_be_calibrated_is_refused() -> None:
    query, gallery = random_features(0), random_features(1)
    for rate in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ClearError, match="between 0 and 1"):
            calibrate(query, gallery, [GENERAL], "f", "d", rate)
    without = LabelledFeatures(query.features, query.pids, query.camids)
    with pytest.raises(ClearError, match="clothes ids"):
        calibrate(without, gallery, [CC], "f", "d")
    empty = LabelledFeatures(query.features[:0], query.pids[:0], query.camids[:0], query.clothes_ids[:0])
    with pytest.raises(ClearError, match="not one pair"):
        calibrate(empty, gallery, [CC], "f", "d")


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--false-match-rate", "7", "false match rate is 7.0; it must lie between 0 and 1"),
        ("--max-memory", "0", "--max-memory is 0; it must be a number of MiB above 0"),
        ("--max-memory", "nan", "--max-memory is nan"),
        ("--max-memory", "inf", "--max-memory is inf"),
    ],
)
def test_the_verb_refuses_numbers_before_it_loads_the_model(flag: str, value: str, message: str) -> None:
    with pytest.raises(ClearError, match=message):
        run_verb(["calibrate", "--model", "no/such/run", "--data", "no.csv", flag, value])


def test_a_folder_of_datasets_with_a_file_of_features_is_refused() -> None:
    with pytest.raises(ClearError, match="--root is the folder of a dataset"):
        run_verb(["calibrate", "--model", "no/such/run", "--data", "f.npz", "--root", "datasets"])


def test_one_person_alone_has_no_threshold() -> None:
    query, gallery = random_features(0, people=1), random_features(1, people=1)
    rates = calibrate(query, gallery, [GENERAL], "f", "d").protocols["general"]
    assert rates.recommended is None and "no pair of different people" in rates.notes[0]


def test_a_protocol_without_a_pair_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    query, gallery = random_features(0), random_features(1)
    nowhere = Protocol("nowhere", query_cameras={99})
    made = calibrate(query, gallery, [nowhere, GENERAL], "f", "d")
    assert made.protocols["general"] == calibrate(query, gallery, [GENERAL], "f", "d").protocols["general"]
    rates = made.protocols["nowhere"]
    assert rates.recommended is None and rates.thresholds == () and rates.people > 0
    assert [note.partition(":")[0] for note in rates.notes] == [
        "there is no pair of the same person",
        "there is no pair of different people",
    ]
    assert "| nowhere    | -" in made.table()
    again = read_calibration(write_calibration(tmp_path, made), "f")
    assert again == made and "no verdict (nowhere)" in compare_similarity(0.5, again).sentence
    plot_calibration(tmp_path, made)


@pytest.fixture
def calibration(tmp_path: Path):
    made = calibrate(random_features(0), random_features(1), [CC, SC, GENERAL], "a" * 64, "Some $et^", 0.02)
    write_calibration(tmp_path, made)
    return made


def test_the_file_is_read_back_as_it_was(tmp_path: Path, calibration) -> None:
    text = (tmp_path / "calibration.json").read_text()
    assert "circular" in json.loads(text, parse_constant=lambda name: pytest.fail(name))["warning"]
    assert read_calibration(tmp_path, "a" * 64) == calibration
    checkpoint = tmp_path / "model_final.pth"
    checkpoint.touch()
    assert read_calibration(checkpoint, "a" * 64) == calibration
    assert read_calibration(tmp_path / "elsewhere" / "model.pth", "a" * 64) is None
    assert len(calibration.protocols["CC"].thresholds) < 500


def test_another_models_calibration_is_refused(tmp_path: Path, calibration) -> None:
    with pytest.raises(ClearError, match="belongs to another model.*run `clip3d calibrate` again"):
        read_calibration(tmp_path, "b" * 64)


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"protocols": 3}', '{"protocols": {"CC": {"thresholds": [NaN]}}}', "[" * 99_999]
)
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / "calibration.json").write_text(damage)
    with pytest.raises(ClearError, match="calibration.json is not a calibration"):
        read_calibration(tmp_path, "a")


@pytest.mark.parametrize(
    "change",
    [
        {"recommended": {"threshold": 0, "false_match_rate": 0, "false_non_match_rate": 0, "false_match_interval": []}},
        {"genuine_pairs": float("inf")},
        {"genuine_pairs": -3},
        {"people": 2.5},
        {"thresholds": [10**400]},
        {"thresholds": [], "false_match_rate": [], "false_non_match_rate": []},
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, calibration, change: dict) -> None:
    content = calibration.as_dict()
    content["protocols"]["SC"] |= change
    (tmp_path / "calibration.json").write_text(json.dumps(content))
    with pytest.raises(ClearError, match="calibration.json is not a calibration"):
        read_calibration(tmp_path, "a" * 64)


def test_a_comparison_says_how_sure_it_is(calibration) -> None:
    rates = calibration.protocols["CC"]
    threshold = rates.recommended.threshold
    sure = compare_similarity(threshold, calibration)
    assert sure.same_person is True and list(sure.by_protocol) == ["CC", "SC", "general"]
    assert "same person (CC, SC, general): at most 5 % false matches" in sure.sentence
    assert sure.by_protocol["CC"]["false_match_rate"] == rates.recommended.false_match_rate <= 0.02
    assert sure.by_protocol["CC"]["false_non_match_rate"] == rates.recommended.false_non_match_rate
    surest = compare_similarity(1.0, calibration)
    assert surest.by_protocol["CC"]["false_match_rate"] == 0
    assert (
        "same person (CC, SC, general): at most 0.1 % false matches" in surest.sentence
    )  # three of 13,680 pairs are 0.02 %
    other = compare_similarity(threshold - 1e-5, calibration)
    assert other.same_person is False and "below the threshold, which misses" in other.sentence
    assert other.sentence.count("%") == 3 and "(SC)" in other.sentence
    assert compare_similarity(-1.0, calibration).by_protocol["CC"]["false_match_rate"] == 1.0
    nothing = compare_similarity(0.5, None)
    assert nothing.same_person is None and nothing.by_protocol == {} and "clip3d calibrate" in nothing.sentence


def test_rates_between_kept_thresholds_are_bounds(calibration) -> None:
    counts = count_pairs(PairSource(random_features(0), random_features(1), [CC]))["CC"]
    rates = calibration.protocols["CC"]
    for similarity in np.random.default_rng(0).uniform(-1, 1, 200):
        place = int(np.searchsorted(THRESHOLDS, similarity))
        false_match, false_non_match = rates.rates_at(similarity)
        assert false_match >= counts.false_matches[place] / counts.num_impostor
        assert false_non_match >= counts.false_non_matches[max(place - 1, 0)] / counts.num_genuine


def test_the_plot_is_a_picture(tmp_path: Path, calibration) -> None:
    with Image.open(plot_calibration(tmp_path, calibration)) as picture:
        assert picture.size[0] > 400 and len(set(picture.convert("RGB").getdata())) > 50


@pytest.mark.parametrize("name", ["out\udce9.npz", "two\nlines", "\x00"])
def test_the_plot_shows_any_name(tmp_path: Path, calibration, name: str) -> None:
    assert plot_calibration(tmp_path, dataclasses.replace(calibration, dataset=name)).stat().st_size > 1000
