"""Transport maps: the loss's own plan by a case solved by hand, exchanged phrases, scales, the sheet's tiles."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_clip3d.config import get_cfg
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.losses import OTLoss, sinkhorn
from fastreid_clip3d.visualization import transport


def two_patches() -> tuple[OTLoss, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two orthogonal patches, two pairs of phrases: pair 0 is patch 0 or patch 1, pair 1 lies between both."""
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.sqrt(0.5), math.sqrt(0.5)], [math.sqrt(0.5), math.sqrt(0.5)]])
    return OTLoss(1, 2, 1, reg=1.0, num_iters=1), torch.eye(2)[None], table, torch.zeros(1, 2, dtype=torch.int64)


def test_map_is_the_plans_column_by_hand() -> None:
    """One iteration with lambda 1: u = (1/2) / (K 1), v_0 = (1/2) / (u . K[:, 0]), column = u K[:, 0] v_0."""
    solver, patches, table, choices = two_patches()
    between = math.exp(math.sqrt(0.5) - 1)
    u = [0.5 / (1 + between), 0.5 / (math.exp(-1) + between)]
    column = [u[0] * 1.0, u[1] * math.exp(-1)]
    expected = [0.5 * part / sum(column) * 4 for part in column]  # times N M
    maps, chosen = transport.phrase_maps(solver, patches, table, choices, [0], (2, 1))
    assert maps.shape == (1, 1, 2, 1) and bool(chosen[0, 0])
    assert maps[0, 0, :, 0].tolist() == pytest.approx(expected, rel=1e-6)
    assert float(maps.mean()) == pytest.approx(1)


def test_maps_are_those_of_sinkhorn_on_the_losss_cost() -> None:
    torch.manual_seed(0)
    solver = OTLoss(1, 8, 1, reg=0.1, num_iters=20)
    patches, table = torch.randn(3, 6, 8), torch.nn.functional.normalize(torch.randn(32, 8))
    choices = torch.randint(0, 2, (3, 16))
    rows = [2 * pair + int(choices[0, pair]) for pair in (0, 7, 15)]
    maps, chosen = transport.phrase_maps(solver, patches, table, choices, rows, (3, 2))
    plan = sinkhorn(solver.cost(patches[:1], table, choices[:1]), 0.1, 20)[0]
    for place, pair in enumerate((0, 7, 15)):
        assert torch.allclose(maps[0, place].flatten(), plan[:, pair] * 6 * 16, rtol=1e-5)
    assert chosen[0].all()
    assert maps.amax() > 1.5  # not merely uniform


def test_the_opposite_phrase_is_exchanged_and_said_to_be() -> None:
    solver, patches, table, choices = two_patches()
    maps, chosen = transport.phrase_maps(solver, patches, table, choices, [1], (2, 1))
    assert not chosen[0, 0]
    as_label, _ = transport.phrase_maps(solver, patches, table, torch.tensor([[1, 0]]), [1], (2, 1))
    assert torch.equal(maps, as_label) and maps[0, 0, 1, 0] > maps[0, 0, 0, 0]
    assert choices.tolist() == [[0, 0]]


@pytest.mark.parametrize("center", ["none", "image", "batch"])
def test_the_maps_of_a_run_centre_patches_as_its_loss_did(center: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.OT.CENTER = center
    torch.manual_seed(1)
    patches, table = torch.randn(2, 6, 8) + 2, torch.nn.functional.normalize(torch.randn(32, 8))
    choices = torch.randint(0, 2, (2, 16))
    cost = transport.solver_of(cfg, 8).cost(patches, table, choices)
    mean = {"none": 0, "image": patches.mean(1, keepdim=True), "batch": patches.mean((0, 1))}[center]
    own = table[2 * torch.arange(16) + choices]
    expected = 1 - torch.nn.functional.cosine_similarity((patches - mean)[:, :, None], own[:, None], dim=3)
    torch.testing.assert_close(cost, expected, rtol=1e-4, atol=1e-5)


def test_a_run_without_transport_is_refused() -> None:
    with pytest.raises(ClearError, match="without OTLoss"):
        transport.phrase_table(SimpleNamespace(phrase_features=None))


def test_scales_are_symmetric_about_a_uniform_plan_and_shared_by_people() -> None:
    maps = torch.ones(2, 2, 2, 1)
    maps[1, 0, 0, 0] = 1.5
    assert transport.colour_limits(maps) == [
        (0.5, 1.5), pytest.approx((1 - transport.NARROWEST, 1 + transport.NARROWEST)),
    ]  # fmt: skip


def test_sheet_has_a_row_a_person_and_a_column_a_phrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = []
    for place in range(2):
        images.append(tmp_path / f"{place}.png")
        Image.new("RGB", (10, 20), (200 * place, 0, 0)).save(images[-1])
    found = transport.PhraseMaps(
        ("Tall", "Fit", "Curvy"), torch.rand(2, 3, 4, 2), torch.tensor([[True, False, True]] * 2)
    )
    drawn = []
    monkeypatch.setattr(transport, "save_figure", lambda figure, output: drawn.append(figure) or output)
    transport.transport_sheet(images, found, tmp_path / "sheet.png", (20, 10))
    pictures = [axes for axes in drawn[0].axes if axes.images]
    assert len(pictures) == 2 * (1 + 3) and [axes.get_title() for axes in pictures[1:4]] == ["Tall", "(Fit)", "Curvy"]
    assert np.allclose(pictures[1].images[1].get_array(), found.maps[0, 0])
    assert len(drawn[0].axes) == 8 + 3  # a scale a phrase
    monkeypatch.undo()
    path = transport.transport_sheet(images, found, tmp_path / "new" / "sheet.jpg", (20, 10))
    assert Image.open(path).format == "JPEG"
    with pytest.raises(ClearError, match="ends in .xyz; it can be written as .png"):
        transport.transport_sheet(images, found, tmp_path / "sheet.xyz", (20, 10))
