"""Re-ranking against fast-reid's dense implementation, and in memory that grows with the images alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.utils.compute_dist import build_dist, compute_jaccard_distance

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import GENERAL
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate
from fastreid_clip3d.evaluation.refinement import Refinement
from fastreid_clip3d.evaluation.reranking import RerankedDistances


def clustered(count: int, seed: int, people: int = 15, dims: int = 16) -> tuple[torch.Tensor, np.ndarray]:
    generator = np.random.default_rng(seed)
    pids = generator.integers(0, people, count)
    centres = np.random.default_rng(99).standard_normal((people, dims))
    features = centres[pids] + 0.7 * generator.standard_normal((count, dims))
    return torch.from_numpy(features.astype(np.float32)), pids


def of_fastreid(query: torch.Tensor, gallery: torch.Tensor, metric: str, k1: int, k2: int, weight: float) -> np.ndarray:
    plain = build_dist(query, gallery, metric)
    if metric == "cosine":
        query, gallery = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
    jaccard = compute_jaccard_distance(torch.cat((query, gallery)), k1=k1, k2=k2, search_option=3)
    return jaccard[: len(query), len(query) :] * (1 - weight) + plain * weight


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (10, 3, 0.0), (5, 1, 0.5), (2, 2, 1.0)])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_distances_are_those_of_fastreid(metric: str, k1: int, k2: int, weight: float) -> None:
    query, gallery = clustered(25, 0)[0], clustered(110, 1)[0]
    found = RerankedDistances(query, gallery, metric, k1, k2, weight).rows(np.arange(25))
    np.testing.assert_allclose(found, of_fastreid(query, gallery, metric, k1, k2, weight), rtol=1e-4, atol=1e-5)


def test_fewer_images_than_neighbours() -> None:
    query, gallery = clustered(2, 0)[0], clustered(6, 1)[0]
    assert np.isfinite(RerankedDistances(query, gallery, "cosine").rows(np.arange(2))).all()
    assert RerankedDistances(query, gallery[:0], "cosine").rows(np.arange(2)).shape == (2, 0)


def test_scores_do_not_depend_on_whether_the_matrix_is_held() -> None:
    (query, query_pids), (gallery, gallery_pids) = clustered(30, 2), clustered(200, 3)
    sides = [
        LabelledFeatures(features, pids, np.full(len(pids), camera))
        for camera, (features, pids) in enumerate(((query, query_pids), (gallery, gallery_pids)))
    ]
    source = RerankedDistances(query, gallery, "cosine")
    matrix = source.rows(np.arange(30))
    by_rows, held = (evaluate(*sides, [GENERAL], distances=given)["general"] for given in (source, matrix))
    assert by_rows.percentages() == held.percentages()
    assert held.mean_average_precision > evaluate(*sides, [GENERAL])["general"].mean_average_precision


def test_memory_grows_with_the_images_and_not_with_their_square() -> None:
    """At 6,000 images fast-reid's two dense matrices alone take 288 MB."""
    features, _ = clustered(6000, 4, people=1500)
    tracemalloc.start()
    RerankedDistances(features[:100], features[100:], "cosine").rows(np.arange(50))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


def test_a_held_matrix_takes_little_more_than_itself() -> None:
    (query, _), (gallery, _) = clustered(2000, 5, people=700), clustered(3000, 6, people=700)
    tracemalloc.start()
    held = Refinement(rerank=(20, 6, 0.3)).distances(query, gallery, "cosine", 1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(held, np.ndarray) and held.nbytes == 24e6
    assert peak < 2.5 * held.nbytes
    some = np.array([1, 130, 1999])
    np.testing.assert_allclose(held[some], RerankedDistances(query, gallery, "cosine").rows(some), atol=1e-6)


def test_settings_out_of_range_are_named() -> None:
    features, _ = clustered(5, 0)
    with pytest.raises(ClearError, match="K1 0"):
        RerankedDistances(features, features, "cosine", k1=0)
    with pytest.raises(ClearError, match="LAMBDA 2"):
        RerankedDistances(features, features, "cosine", weight=2)
    with pytest.raises(ClearError, match="'jaccard'"):
        RerankedDistances(features, features, "jaccard")
