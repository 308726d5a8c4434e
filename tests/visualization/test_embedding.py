"""Embeddings: shares by hand, the same points for the same seed, whom it shows, both methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from fastreid_clip3d.visualization import embedding


def people(count: int = 6, clothes: bool = True) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Each person in two outfits, two images each; one more person who never changes."""
    generator = np.random.default_rng(0)
    pids = np.repeat(np.arange(count + 1), 4)
    outfits = np.tile([0, 0, 1, 1], count + 1)
    outfits[pids == count] = 0
    features = torch.from_numpy(generator.standard_normal((len(pids), 5)).astype(np.float32))
    side = slice(0, None, 4)
    rest = np.setdiff1d(np.arange(len(pids)), np.arange(len(pids))[side])
    return tuple(
        LabelledFeatures(features[rows], pids[rows], np.zeros(len(pids[rows])), outfits[rows] if clothes else None)
        for rows in (side, rest)
    )


def test_shares_by_hand() -> None:
    """On a circle: items 0 and 1 (person 7, outfits a, b) are close, 2 (person 8) nearer to them than 3 (person 7)."""
    angles = np.array([0.0, 0.1, 0.3, 2.0])
    features = np.stack([np.cos(angles), np.sin(angles)], 1)
    pids, clothes = np.array([7, 7, 8, 7]), np.array([0, 1, 0, 0])
    # nearest: 0 -> 1, 1 -> 0, 2 -> 1, 3 -> 2. In other clothes: 0 -> 1 hit, 1 -> 0 hit, 2 -> 1 miss, 3 -> 2 miss.
    assert embedding.neighbour_shares(features, pids, clothes) == (0.5, 0.0, 0.5)
    assert embedding.neighbour_shares(features, pids, None) == (0.5, None, None)
    # The same outfit number on another person is another outfit.
    assert embedding.neighbour_shares(features[[0, 2]], pids[[0, 2]], clothes[[0, 2]]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("method", embedding.METHODS)
def test_the_same_seed_gives_the_same_points(method: str) -> None:
    first, again = (embedding.embed(*people(), people=4, method=method, seed=3) for _ in range(2))
    assert first.points.shape == (16, 2) and np.array_equal(first.points, again.points)
    assert np.isfinite(first.points).all() and len(np.unique(first.pids)) == 4
    other = embedding.embed(*people(), people=4, method=method, seed=4)
    assert not np.array_equal(first.points, other.points)


def test_pca_keeps_the_widest_direction() -> None:
    features = np.zeros((5, 3))
    features[:, 1] = [0, 1, 2, 3, 4]
    points = embedding.project(features, "pca")
    assert np.abs(points[:, 0]).tolist() == pytest.approx([2, 1, 0, 1, 2]) and np.allclose(points[:, 1], 0)


def test_people_who_never_change_are_left_out_where_others_do() -> None:
    query, gallery = people()
    pids = np.concatenate([query.pids, gallery.pids])
    clothes = np.concatenate([query.clothes_ids, gallery.clothes_ids])
    assert embedding.choose_people(pids, clothes, 100).tolist() == [0, 1, 2, 3, 4, 5]
    assert embedding.choose_people(pids, None, 100).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert embedding.choose_people(np.array([4, 4]), np.array([1, 1]), 3).tolist() == [4]


def test_sheet_colours_by_person_and_by_clothes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("fastreid_clip3d.visualization.embedding.save_figure", lambda figure, _: drawn.append(figure))
    found = embedding.embed(*people(), people=3, method="pca")
    embedding.embedding_sheet(found, tmp_path / "sheet.png", r"we$\foo$ird")
    drawn[0].canvas.draw()  # a name is no formula
    embedding.embedding_sheet(embedding.embed(*people(clothes=False), people=3, method="pca"), tmp_path / "sheet.png")
    assert [len(axes.collections) for axes in drawn[0].axes] == [3, 6]
    assert [len(axes.collections) for axes in drawn[1].axes] == [3]
    assert f"{found.same_person:.0%}" in drawn[0]._supxlabel.get_text()


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ClearError, match="tsne and pca"):
        embedding.embed(*people(), method="umap")
    query, gallery = (LabelledFeatures(torch.ones(1, 2), np.zeros(1, int), np.zeros(1, int)) for _ in range(2))
    with pytest.raises(ClearError, match="three items"):
        embedding.embed(query, gallery)
