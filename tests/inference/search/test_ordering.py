"""The order of an answer with several pictures of a person and with refinements, and what a search says of "nobody"."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.refinement import Refinement
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.inference.search import ordering
from fastreid_clip3d.inference.search.ordering import RefinedGallery, query_features
from tests.evaluation.test_reranking import clustered, of_fastreid
from tests.inference.search.running import names_of, searched
from tests.references import centralisation as slow


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


@pytest.fixture
def vectors() -> np.ndarray:
    return unit(clustered(80, 3)[0].numpy())


@pytest.fixture
def person() -> np.ndarray:
    return unit(clustered(3, 4)[0].numpy())


def test_the_best_of_several_pictures_counts(vectors: np.ndarray, person: np.ndarray) -> None:
    found = RefinedGallery(vectors, Refinement()).order(person, {7}, 5)
    best = (vectors @ person.T).max(1)
    expected = [row for row in np.argsort(-best) if row != 7][:5]
    assert found.rows == expected and found.similarities == pytest.approx(best[expected].tolist(), abs=1e-6)
    assert found.best == found.similarities[0]


def test_the_mean_of_several_pictures_is_normalised(person: np.ndarray) -> None:
    np.testing.assert_allclose(query_features(person, "mean"), unit(person.mean(0, keepdims=True)), atol=1e-6)
    assert query_features(person, "best") is person


def test_nfc_moves_the_gallery(vectors: np.ndarray, person: np.ndarray) -> None:
    moved = np.array(slow.centralised(vectors.tolist(), 2, 2))
    plain = vectors @ person[0]
    expected = np.lexsort((-plain, -(moved @ person[0]).round(6)))[:20].tolist()
    found = RefinedGallery(vectors, Refinement(nfc=(2, 2))).order(person[:1], set(), 20)
    assert found.rows == expected != np.argsort(-plain)[:20].tolist()
    assert found.similarities == pytest.approx(plain[expected].tolist(), abs=1e-6)


def test_expansion_averages_with_the_nearest(vectors: np.ndarray, person: np.ndarray) -> None:
    def average(feature: np.ndarray, others: np.ndarray, count: int) -> np.ndarray:
        cosines = others @ feature
        nearest = np.argsort(-cosines)[:count]
        return unit((cosines[nearest, None] ** 3 * others[nearest]).sum(0))

    moved = np.stack([average(vector, vectors, 4) for vector in vectors])
    cosines = moved @ person[0]
    nearest = np.argsort(-cosines)[:3]
    query = unit(person[0] + (cosines[nearest, None] ** 3 * moved[nearest]).sum(0))
    found = RefinedGallery(vectors, Refinement(expand=4)).order(person[:1], set(), 20)
    assert found.rows == np.argsort(-(moved @ query))[:20].tolist()


def test_re_ranking_is_that_of_fastreid(
    vectors: np.ndarray, person: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    distances = of_fastreid(torch.from_numpy(person[:1]), torch.from_numpy(vectors), "cosine", 20, 6, 0.3)
    refined = RefinedGallery(vectors, Refinement.of_flags(rerank=True))
    assert refined.order(person[:1], set(), 80).rows == np.argsort(distances[0], kind="stable").tolist()
    monkeypatch.setattr(ordering, "RERANKED", 10)
    plain = np.argsort(-(vectors @ person[0]))
    assert set(refined.order(person[:1], set(), 5).rows) < set(plain[:10].tolist())


@pytest.mark.parametrize("refinement", [Refinement(), Refinement.of_flags(True, 3, True)], ids=str)
def test_galleries_of_no_and_of_one_picture(refinement: Refinement, person: np.ndarray, vectors: np.ndarray) -> None:
    assert RefinedGallery(vectors[:0], refinement).order(person, set(), 5).rows == []
    assert RefinedGallery(vectors[:1], refinement).order(person, {0}, 5).rows == []
    assert RefinedGallery(vectors[:1], refinement).order(person, set(), 5).rows == [0]


def test_one_person_gets_one_answer(run: Path, gallery: Path, tmp_path: Path) -> None:
    pictures = [str(shutil.copy(gallery / f"camera{n % 2}" / f"{n}.png", tmp_path / f"q{n}.png")) for n in (3, 4)]
    (best,) = searched(run, gallery, "--query", *pictures, "--one-person", "best")["answers"]
    assert set(names_of(best)[:2]) == {"3.png", "4.png"} and best["query_pictures"] == pictures
    (mean,) = searched(run, gallery, "--query", *pictures, "--one-person")["answers"]
    model = load_model(run, "cpu")
    paths = sorted(map(str, gallery.rglob("*.png")))
    query = unit(model(pictures).numpy().mean(0))
    similarities = model(paths).numpy() @ query
    assert [hit["name"] for hit in mean["hits"]] == [paths[place] for place in np.argsort(-similarities)[:10]]
    assert mean["hits"][0]["similarity"] == pytest.approx(similarities.max(), abs=1e-5)


def test_a_refined_search_says_so(run: Path, gallery: Path, capsys: pytest.CaptureFixture) -> None:
    query = str(gallery / "camera0" / "0.png")
    (answer,) = searched(run, gallery, "--query", query, "--nfc", "--expand", "3", "--rerank")["answers"]
    assert len(answer["hits"]) == 10 and query not in [hit["name"] for hit in answer["hits"]]
    assert "The order is refined (NFC, expanded by 3, re-ranked)" in capsys.readouterr().out
    with pytest.raises(ClearError, match="do not change phrases"):
        searched(run, gallery, "--phrases", "tall", "--nfc")


def test_nobody_is_named_where_it_is_likelier(run: Path, synthcc: Path, tmp_path: Path, capsys) -> None:
    """The query's own picture is in the gallery; without it, the best similarity is lower than the threshold."""
    own = Path(shutil.copytree(run, tmp_path / "own"))
    assert run_verb(["calibrate", "--model", str(own), "--data", "SynthCCTiny", "--device", "cpu"]) == 0
    assert "Searches: is the person in the gallery?" in capsys.readouterr().out
    copy = str(shutil.copy(synthcc / "gallery" / "0003_o1_c2_00.jpg", tmp_path / "copy.jpg"))
    (answer,) = searched(own, synthcc / "gallery", "--query", copy)["answers"]
    assert answer["likely_nobody"] is False and "More likely" not in capsys.readouterr().out
    place = own / "calibration.json"
    content = json.loads(place.read_text())
    for rates in content["protocols"].values():
        rates["open_set"][-1]["nobody_below"] = 1.1
    place.write_text(json.dumps(content))
    (answer,) = searched(own, synthcc / "gallery", "--query", copy)["answers"]
    assert answer["likely_nobody"] is True and "More likely nobody in the gallery" in capsys.readouterr().out
    pictures = [copy, str(synthcc / "query" / "0003_o1_c1_00.jpg")]
    found = searched(own, synthcc / "gallery", "--query", *pictures, "--one-person")
    assert found["answers"][0]["likely_nobody"] is None and "single pictures" in found["calibration_note"]
