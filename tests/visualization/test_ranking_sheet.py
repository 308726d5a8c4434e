"""Ranking sheets: tiles where they belong, frames by hit and miss, runs that cannot be compared, the run's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import write_features
from fastreid_clip3d.evaluation.protocols import GENERAL
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate
from fastreid_clip3d.visualization.ranking import HIT, MISS, QUERY, RankedModel, draw_ranking, sorted_queries
from fastreid_clip3d.visualization.run_files import run_features


def side(folder: Path, name: str, pids: list[int], camera: int, angles: list[float]) -> LabelledFeatures:
    names = []
    for place in range(len(pids)):
        names.append(str(folder / f"{name}{place}.png"))
        Image.new("RGB", (8, 16), (10 * place, 20, 200)).save(names[-1])
    features = torch.tensor([[np.cos(angle), np.sin(angle)] for angle in angles], dtype=torch.float32)
    return LabelledFeatures(features, np.array(pids), np.full(len(pids), camera), None, tuple(names))


@pytest.fixture
def sides(tmp_path: Path) -> tuple[LabelledFeatures, LabelledFeatures]:
    """One query of person 1; its closest is person 2, then itself, then person 3."""
    return side(tmp_path, "query", [1], 0, [0.0]), side(tmp_path, "gallery", [1, 2, 3], 1, [0.2, 0.1, 1.0])


def test_two_models_stand_one_below_the_other_with_frames(sides: tuple) -> None:
    query, gallery = sides
    better = LabelledFeatures(gallery.features[[1, 0, 2]], gallery.pids, gallery.camids, None, gallery.names)
    models = [RankedModel("one", query, gallery), RankedModel("two", query, better)]
    sheet = np.asarray(draw_ranking(models, GENERAL, [0], top=3, tile=(8, 16)))
    colours = [_frames(rows) for rows in (sheet[40 : 40 + 22], sheet[80 : 80 + 22])]
    assert colours == [[QUERY, MISS, HIT, MISS], [QUERY, HIT, MISS, MISS]]


def _frames(rows: np.ndarray) -> list[tuple[int, int, int]]:
    """The frames' colours from left to right, along their top line."""
    found: list[tuple[int, int, int]] = []
    previous = None
    for pixel in map(tuple, rows[0].tolist()):
        if pixel in (QUERY, HIT, MISS) and pixel != previous:
            found.append(pixel)
        previous = pixel
    return found


def test_other_test_sets_and_features_without_paths_are_refused(sides: tuple) -> None:
    query, gallery = sides
    nameless = LabelledFeatures(gallery.features, gallery.pids, gallery.camids)
    with pytest.raises(ClearError, match="two: its gallery features have no image paths"):
        draw_ranking([RankedModel("two", query, nameless)], GENERAL, [0])
    other = LabelledFeatures(gallery.features, gallery.pids + 1, gallery.camids, None, gallery.names)
    with pytest.raises(ClearError, match="two and one have different gallery items"):
        draw_ranking([RankedModel("one", query, gallery), RankedModel("two", query, other)], GENERAL, [0])


def test_features_of_a_run(sides: tuple, tmp_path: Path) -> None:
    with pytest.raises(ClearError, match="no such run"):
        run_features(tmp_path / "gone")
    with pytest.raises(ClearError, match="SAVE_FEATURES True"):
        run_features(tmp_path)
    for name in ("A", "B"):
        write_features(tmp_path / "evaluation" / f"{name}_features.npz", *sides)
    with pytest.raises(ClearError, match="A, B; choose one with --data"):
        run_features(tmp_path)
    with pytest.raises(ClearError, match="no features of 'C'"):
        run_features(tmp_path, "C")
    query, gallery = run_features(tmp_path, "B")
    assert query.names == sides[0].names and len(gallery) == 3
    assert len(run_features(tmp_path / "evaluation" / "A_features.npz")[1]) == 3


def three_people(tmp_path: Path) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Queries 0 and 1 of person 1 find it second and third, query 2 of person 2 first, query 3 has no match."""
    query = side(tmp_path, "query", [1, 1, 2, 9], 0, [0.0, 1.2, 0.5, 0.0])
    return query, side(tmp_path, "gallery", [1, 2, 3], 1, [-0.2, 0.5, 0.1])


def test_the_worst_and_the_best_queries_come_first(tmp_path: Path) -> None:
    query, gallery = three_people(tmp_path)
    result = evaluate(query, gallery, [GENERAL])["general"]
    assert result.average_precisions == pytest.approx([1 / 2, 1 / 3, 1])
    assert sorted_queries(result, query, ["worst"], 4) == ([1, 2], "worst first")
    assert sorted_queries(result, query, ["best"], 4) == ([2, 0], "best first")
    assert sorted_queries(result, query, ["best"], 1)[0] == [2]
    chosen, order = sorted_queries(result, query, ["random"], 2, seed=3)
    assert {int(query.pids[row]) for row in chosen} == {1, 2} and order == "drawn at random (seed 3)"


def test_queries_are_found_by_name(tmp_path: Path) -> None:
    query, gallery = three_people(tmp_path)
    result = evaluate(query, gallery, [GENERAL])["general"]
    assert sorted_queries(result, query, ["query2.png", query.names[0]], 1) == ([2, 0], "as named")
    for name, fault in (("uery2.png", "no query picture"), ("query3.png", "has no match"), ("wurst", "worst, best")):
        with pytest.raises(ClearError, match=fault):
            sorted_queries(result, query, [name], 1)
    twice = LabelledFeatures(query.features, query.pids, query.camids, None, ("a/x.png", "b/x.png", "c.png", "d.png"))
    with pytest.raises(ClearError, match="2 query pictures"):
        sorted_queries(result, twice, ["x.png"], 1)
    assert sorted_queries(result, twice, ["b/x.png"], 1)[0] == [1]
