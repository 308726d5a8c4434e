"""NFC against its definition, query expansion against fast-reid's, and both together with re-ranking in evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.evaluation.query_expansion import aqe

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation import centralisation
from fastreid_clip3d.evaluation.centralisation import centralised
from fastreid_clip3d.evaluation.features_file import write_features
from fastreid_clip3d.evaluation.protocols import GENERAL
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate
from fastreid_clip3d.evaluation.refinement import Refinement, expanded
from fastreid_clip3d.evaluation.reranking import RerankedDistances
from tests.evaluation.test_reranking import clustered
from tests.references import centralisation as slow


@pytest.mark.parametrize(("k1", "k2"), [(2, 2), (1, 1), (4, 2), (2, 5), (50, 50)])
def test_nfc_is_its_definition(k1: int, k2: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = clustered(40, 5)
    monkeypatch.setattr(centralisation, "_BLOCK_PAIRS", 300)  # several blocks
    found = centralised(features, k1, k2).numpy()
    np.testing.assert_allclose(found, slow.centralised(features.tolist(), k1, k2), atol=1e-5)


def test_nfc_of_few_images() -> None:
    assert centralised(torch.zeros(0, 3)).shape == (0, 3)
    assert centralised(torch.tensor([[3.0, 4.0]])).tolist() == [pytest.approx([0.6, 0.8])]
    with pytest.raises(ClearError, match="K1 0"):
        centralised(torch.ones(3, 2), 0)


@pytest.mark.parametrize(("times", "count", "alpha"), [(1, 10, 3.0), (2, 4, 1.0), (1, 1, 3.0)])
def test_expansion_is_fastreids(times: int, count: int, alpha: float) -> None:
    query, gallery = clustered(20, 6)[0], clustered(90, 7)[0]
    expected = aqe(query, gallery, times, count, alpha)
    found = Refinement(expand=count, times=times, alpha=alpha).features(query, gallery)
    for own, theirs in zip(found, expected):
        np.testing.assert_allclose(own.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_expansion_with_a_fractional_power_of_negative_similarities() -> None:
    """A negative number has no power 1.5: such neighbours count with weight 0, where fast-reid gives NaN."""
    features = torch.tensor([[1.0, 0.0], [-0.6, 0.8]])
    assert torch.equal(expanded(features, features, 2, 1.5), features / 2)
    third = expanded(features, features, 2, 3.0)
    np.testing.assert_allclose(third[0], [(1 + 0.216 * 0.6) / 2, -0.216 * 0.8 / 2], rtol=1e-5)


def test_expansion_by_more_images_than_there_are() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert expanded(features, features, 9).tolist() == [[0.5, 0.0], [0.0, 0.5]]
    with pytest.raises(ClearError, match="-1"):
        Refinement(expand=-1)


def sides() -> list[LabelledFeatures]:
    return [
        LabelledFeatures(features, pids, np.full(len(pids), camera))
        for camera, (features, pids) in enumerate((clustered(30, 8), clustered(120, 9)))
    ]


def by_file(path: Path, *flags: str) -> dict:
    out = path.with_suffix(".json")
    assert run_verb(["evaluate", "--features", str(path), "--protocols", "general", "--json", str(out), *flags]) == 0
    return json.loads(out.read_text())["general"]


def test_the_verb_scores_refined_features(tmp_path: Path) -> None:
    query, gallery = sides()
    write_features(tmp_path / "f.npz", query, gallery)
    plain = by_file(tmp_path / "f.npz")["mAP"]
    moved = [
        LabelledFeatures(torch.tensor(slow.centralised(side.features.tolist(), 2, 2)), side.pids, side.camids)
        for side in (query, gallery)
    ]
    expected = 100 * evaluate(*moved, [GENERAL])["general"].mean_average_precision
    assert by_file(tmp_path / "f.npz", "--nfc")["mAP"] == pytest.approx(expected, abs=1e-3) != pytest.approx(plain)
    expanded_sides = aqe(query.features, gallery.features, 1, 5, 3.0)
    distances = RerankedDistances(*expanded_sides, "cosine").rows(np.arange(30))
    expected = 100 * evaluate(query, gallery, [GENERAL], distances=distances)["general"].mean_average_precision
    assert by_file(tmp_path / "f.npz", "--expand", "5", "--rerank")["mAP"] == pytest.approx(expected, abs=1e-3)
    assert expected > plain + 5


@pytest.mark.parametrize("flags", [["--nfc"], ["--expand", "3"], ["--rerank"]])
def test_features_too_large_for_float32_are_refused(tmp_path: Path, flags: list[str]) -> None:
    query, gallery = sides()
    for side in (query, gallery):
        side.features = side.features.double() * 1e200
    write_features(tmp_path / "f.npz", query, gallery)
    with pytest.raises(ClearError, match=r"largest number of the features is [\d.]+e\+200"):
        by_file(tmp_path / "f.npz", *flags)


@pytest.mark.parametrize("flags", [["--nfc"], ["--expand", "3"], ["--rerank"]])
@pytest.mark.parametrize("kept", [(0, 0), (0, 5), (5, 0), (1, 1)])
def test_refinement_of_next_to_nothing(tmp_path: Path, flags: list[str], kept: tuple[int, int]) -> None:
    parts = [
        LabelledFeatures(side.features[:count], side.pids[:count], side.camids[:count])
        for side, count in zip(sides(), kept)
    ]
    write_features(tmp_path / "f.npz", *parts)
    assert by_file(tmp_path / "f.npz", *flags)["valid_queries"] in (0, 1)


GROWTH = """
import resource, torch
from fastreid_clip3d.common.host_memory import keep_memory
from fastreid_clip3d.evaluation.centralisation import nearest_images
keep_memory()
features = torch.nn.functional.normalize(torch.rand(16000, 8, generator=torch.Generator().manual_seed(0)), dim=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
nearest_images(features, features, 5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts KiB on Linux only")
def test_neighbours_take_the_memory_of_one_block() -> None:
    """All 16,000 x 16,000 products would take 1 GB."""
    result = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) * 1024 < 100e6
