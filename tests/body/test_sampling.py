"""Random body shapes: the paper's population, repeatable."""

from __future__ import annotations

import numpy as np
import pytest

from fastreid_clip3d.body import load_body_model, sample_betas, sample_population
from fastreid_clip3d.body.constants import FEMALE, GENDERS, MALE
from fastreid_clip3d.body.sampling import BETA_LIMIT
from fastreid_clip3d.errors import ClearError


def test_papers_population():
    betas, gender = sample_population(seed=0)
    assert betas.shape == (1000, 10) and betas.dtype == np.float32
    assert gender.shape == (1000,) and gender.dtype == np.int8
    assert (gender == FEMALE).sum() == 500 and (gender == MALE).sum() == 500
    assert [GENDERS[code] for code in (FEMALE, MALE)] == ["female", "male"]
    for code in (FEMALE, MALE):
        load_body_model(gender=GENDERS[code], num_betas=betas.shape[1])


def test_standard_normal_within_the_limit():
    betas = sample_betas(20_000, seed=1)
    assert np.abs(betas).max() == np.float32(BETA_LIMIT) == 2.5
    assert np.abs(betas.mean(0)).max() < 0.03
    np.testing.assert_allclose(betas.std(0), 0.986, atol=0.02, err_msg="1, less what the limit takes")
    correlations = np.corrcoef(betas.T) - np.eye(10)
    assert np.abs(correlations).max() < 0.03
    assert np.abs(sample_betas(1000, seed=1, limit=1.0)).max() == 1.0


def test_same_seed_same_bodies():
    np.testing.assert_array_equal(sample_betas(7, seed=3), sample_betas(7, seed=3))
    assert not np.array_equal(sample_betas(7, seed=3), sample_betas(7, seed=4))
    first, again, other = (sample_population(seed, 5, 5) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0][:5], first[0][5:]), "the sexes are drawn apart"
    assert len(np.unique(sample_population(0)[0], axis=0)) == 1000


def test_sexes_do_not_disturb_each_other():
    betas, gender = sample_population(seed=9, females=3, males=8)
    more_women, more_gender = sample_population(seed=9, females=6, males=8)
    np.testing.assert_array_equal(betas[gender == MALE], more_women[more_gender == MALE])
    np.testing.assert_array_equal(betas[gender == FEMALE], more_women[:3])
    state = np.random.get_state()[1].copy()
    sample_population(seed=1)
    np.testing.assert_array_equal(state, np.random.get_state()[1])


def test_zero_bodies_and_impossible_numbers():
    assert sample_betas(0, seed=0).shape == (0, 10)
    assert sample_betas(2, seed=0, num_betas=3).shape == (2, 3)
    with pytest.raises(ClearError, match="not -1 and 10"):
        sample_betas(-1, seed=0)
    with pytest.raises(ClearError, match="not 1 and 0"):
        sample_betas(1, seed=0, num_betas=0)
