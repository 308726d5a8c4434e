"""The 16 descriptors: balanced labels, what scale does to them, answers to anny's controls, errors; and the tool."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from fastreid_clip3d.body import control_response, descriptors
from fastreid_clip3d.body.descriptors import DESCRIPTORS, describe, label, population_statistics, population_thresholds
from fastreid_clip3d.body.model import load_body_model
from fastreid_clip3d.body.sampling import sample_betas
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import NUM_PAIRS, PHRASE_PAIRS

TOOL = Path(__file__).resolve().parents[2] / "tools" / "describe_body.py"
PAIR = {pair.phrase_1: index for index, pair in enumerate(PHRASE_PAIRS)}


@pytest.fixture(scope="module", params=["female", "male"])
def body_model(request):
    return load_body_model(gender=request.param)


@pytest.fixture(scope="module")
def female():
    return load_body_model(gender="female")


@pytest.fixture(scope="module")
def bodies(female):
    return female.shape(torch.from_numpy(sample_betas(5, seed=4)))


def test_descriptors_stand_in_the_order_of_the_table():
    assert [descriptor.phrase_1 for descriptor in DESCRIPTORS] == [pair.phrase_1 for pair in PHRASE_PAIRS]


def test_scores_have_shape_type_and_no_dependence_on_the_batch(female, bodies):
    scores = describe(bodies, female)
    assert scores.shape == (5, NUM_PAIRS) and scores.dtype == torch.float32
    assert torch.allclose(describe(bodies[2:3], female)[0], scores[2], atol=1e-5)


def test_only_heavyset_tall_and_stocky_depend_on_size(female, bodies):
    change = (describe(1.2 * bodies, female) - describe(bodies, female)).mean(dim=0) / math.log(1.2)
    expected = torch.zeros(NUM_PAIRS)
    expected[PAIR["Heavyset"]], expected[PAIR["Tall"]], expected[PAIR["Stocky"]] = 2.0, 1.0, -0.5
    assert torch.allclose(change, expected, atol=2e-3)


def test_labels_are_balanced_on_other_bodies_of_the_same_sex(body_model):
    scores = describe(body_model.shape(torch.from_numpy(sample_betas(800, seed=99))), body_model)
    share = (label(scores, population_thresholds(body_model)) == 0).float().mean(dim=0)
    assert ((share > 0.45) & (share < 0.55)).all(), share


def test_label_is_phrase_1_only_above_the_threshold():
    scores = torch.tensor([[0.5] * 15 + [0.4], [0.6] * 16])
    choices = label(scores, torch.full((16,), 0.5))
    assert choices.dtype == torch.int64
    assert choices.tolist() == [[1] * 16, [0] * 16]


@pytest.mark.parametrize("name", ["scores", "thresholds"])
def test_labels_of_nonsense_are_refused(name):
    good = {"scores": torch.zeros(2, 16), "thresholds": torch.zeros(16)}
    with pytest.raises(ClearError, match=f"{name}: wanted"):
        label(**{**good, name: good[name][..., :15]})
    with pytest.raises(ClearError, match=f"{name} hold NaN"):
        label(**{**good, name: torch.full_like(good[name], math.nan)})


def test_nan_bodies_are_refused(female, bodies):
    with pytest.raises(ClearError, match="NaN"):
        describe(torch.full_like(bodies, math.nan), female)


def test_statistics_depend_on_seed_and_model_and_repeat(female):
    first, again, other = (population_statistics(female, 40, seed) for seed in (1, 1, 2))
    assert torch.equal(first.median, again.median) and not torch.equal(first.median, other.median)
    assert (first.lower_quartile < first.median).all() and (first.median < first.upper_quartile).all()
    plain = json.loads(json.dumps(first.as_dict()))
    assert plain["count"] == 40 and plain["seed"] == 1 and plain["fingerprint"] == female.fingerprint()
    assert len(plain["median"]) == len(plain["standard_deviation"]) == len(plain["phrases_1"]) == NUM_PAIRS


def test_thresholds_are_computed_once_for_a_model_and_are_not_shared(female, monkeypatch):
    first = population_thresholds(female, 30, 5)
    expected = first.clone()
    first.zero_()
    monkeypatch.setattr(descriptors, "population_statistics", lambda *_: pytest.fail("computed again"))
    assert torch.equal(population_thresholds(female, 30, 5), expected)


# ---- answers to the controls


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 6, 20).astype(float), rng.normal(size=20)
        expected = spearmanr(a, b).statistic
        assert float(control_response.rank_correlation(torch.tensor(a), torch.tensor(b))) == pytest.approx(expected)
    constant = torch.ones(20, dtype=torch.float64)
    assert control_response.rank_correlation(constant, torch.tensor(b)) == 0


def test_projection_gives_back_the_coefficients(female):
    betas = torch.from_numpy(sample_betas(4, seed=8))
    assert torch.allclose(control_response.project(female.shape(betas), female), betas, atol=1e-3)


def run_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, timeout=120)


# ---- the tool


def test_tool_describes_betas_and_the_same_body_from_a_file(female, tmp_path):
    betas = [1.2, -0.7, 0.3]
    row = torch.zeros(1, female.num_betas)
    row[0, :3] = torch.tensor(betas)
    mesh = trimesh.Trimesh(female.shape(row)[0].numpy(), female.faces.numpy(), process=False)
    mesh.export(tmp_path / "body.ply")
    from_betas = run_tool("--gender", "female", "--betas", *map(str, betas), "--json")
    from_file = run_tool(str(tmp_path / "body.ply"), "--gender", "female", "--json")
    assert from_betas.returncode == from_file.returncode == 0, from_betas.stderr + from_file.stderr
    first, second = json.loads(from_betas.stdout), json.loads(from_file.stdout)
    scores = describe(female.shape(row), female)[0]
    for index, (pair, other) in enumerate(zip(first["descriptors"], second["descriptors"], strict=True)):
        assert pair["phrase"] == other["phrase"] in PHRASE_PAIRS[index][:2]
        assert pair["score"] == pytest.approx(float(scores[index]), abs=1e-5)
        assert other["score"] == pytest.approx(pair["score"], abs=1e-4)
        assert (pair["phrase"] == PHRASE_PAIRS[index].phrase_1) == (pair["score"] > pair["threshold"])
    assert first["measurements"]["volume"]["unit"] == "m3"
    assert first["measurements"]["stature"]["value"] == pytest.approx(second["measurements"]["stature"]["value"])


def test_tool_prints_tables():
    result = run_tool("--betas", "0")
    assert result.returncode == 0, result.stderr
    assert "deviations" in result.stdout and "waist girth" in result.stdout


def test_tool_tells_what_is_wrong(tmp_path, female):
    trimesh.creation.box().export(tmp_path / "box.ply")
    (tmp_path / "notes.ply").write_text("no mesh")
    shuffled = trimesh.Trimesh(female.v_template.numpy(), female.faces.flip(0).roll(1, 0).numpy() // 2, process=False)
    shuffled.export(tmp_path / "other.ply")
    cases = {
        "one of the two": [],
        "no such file": [str(tmp_path / "missing.obj")],
        "8 vertices, but the body model has": [str(tmp_path / "box.ply")],
        "cannot be read as a mesh": [str(tmp_path / "notes.ply")],
        "joined in another way": [str(tmp_path / "other.ply")],
        "at most 10 numbers": ["--betas", *["0"] * 11],
        "only finite": ["--betas", "nan"],
    }
    for message, arguments in cases.items():
        result = run_tool(*arguments)
        assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr, result.stderr
