"""Which patches make two pictures alike: shares against pairs of patches one by one, and against the similarity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.inference.model import load_torch_model
from fastreid_clip3d.visualization.alike import alike_sheet, find_alike, patch_shares
from tests.inference.conftest import picture, write_run
from tests.standins import small_config


def test_a_share_is_the_sum_over_pairs_of_patches() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.standard_normal((6, 4)), generator.standard_normal((5, 4))
    lengths = np.linalg.norm(first.sum(0)) * np.linalg.norm(second.sum(0))
    pairs = np.array([[np.dot(a, b) / lengths for b in second] for a in first])
    found = patch_shares(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(found[0].numpy(), pairs.sum(1), rtol=1e-9)
    np.testing.assert_allclose(found[1].numpy(), pairs.sum(0), rtol=1e-9)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    cfg = small_config()
    cfg.MODEL.HEADS.NAME, cfg.MODEL.HEADS.POOL_LAYER = "EmbeddingHead", "GlobalAvgPool"
    folder = tmp_path_factory.mktemp("alike") / "run"
    write_run(folder, cfg)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[str, str]:
    for number in (1, 2):
        picture(number).save(tmp_path / f"p{number}.png")
    return str(tmp_path / "p1.png"), str(tmp_path / "p2.png")


def test_shares_add_up_to_the_similarity_of_an_average_pooled_student(run: Path, pictures: tuple[str, str]) -> None:
    model = load_torch_model(run, "cpu")
    features = model(list(pictures))
    found = find_alike(model, *pictures)
    assert found.similarity == pytest.approx(float(features[0] @ features[1]), abs=1e-6)
    assert [float(own.sum()) for own in found.shares] == pytest.approx([found.similarity] * 2, abs=1e-4)
    assert found.shares.shape == (2, *model.map_size) and float(found.shares.std()) > 1e-4


def test_equal_pictures_have_equal_maps_and_the_side_that_differs_is_blue(run: Path, tmp_path: Path) -> None:
    """Two pictures with one upper half: the upper patches are the more alike ones."""
    one, other = (np.asarray(picture(seed, 64, 32)).copy() for seed in (3, 4))
    other[:32] = one[:32]
    paths = []
    for number, pixels in enumerate((one, other)):
        paths.append(str(tmp_path / f"half{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    model = load_torch_model(run, "cpu")
    upper, lower = find_alike(model, *paths).shares[0].chunk(2)
    assert float(upper.mean()) > float(lower.mean())
    same = find_alike(model, paths[0], paths[0])
    assert torch.equal(same.shares[0], same.shares[1]) and same.explained == pytest.approx(1, abs=1e-4)


def test_the_verb_draws_both_pictures(run: Path, pictures: tuple[str, str], tmp_path: Path, capsys) -> None:
    output = tmp_path / "alike.png"
    words = ["visualize", "alike", *pictures, "--model", str(run), "--device", "cpu", "--output", str(output)]
    assert run_verb(words) == 0 and "similarity 0." in capsys.readouterr().out.replace("-0.", "0.")
    with Image.open(output) as drawn:
        assert drawn.width > drawn.height and len(set(drawn.convert("RGB").getdata())) > 100
    model = load_torch_model(run, "cpu")
    found = find_alike(model, *pictures)
    assert alike_sheet(pictures, found, tmp_path / "own.svg", model.size).stat().st_size > 1000
