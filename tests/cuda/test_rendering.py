"""PyTorch3D's rasteriser on the device gives the pictures that ours gives on a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastreid_clip3d.body.model import load_body_model


def test_silhouettes_and_pictures(device: str) -> None:
    pytest.importorskip("pytorch3d")
    from fastreid_clip3d.body.rendering import GreyRenderer, draw, lights_of, stand_on_ground, views_of

    model = load_body_model("", "female")
    size = (64, 32)
    betas = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    vertices = stand_on_ground(model.shape(betas))
    draws = [draw(np.random.default_rng(number)) for number in range(3)]
    views, lights = views_of(vertices, draws, size, "crop"), lights_of(draws)
    renderer = GreyRenderer(model.faces, size)
    expected = renderer.render(vertices, views, lights)
    found = renderer.render(vertices.to(device), views.to(device), lights.to(device)).cpu()
    covered, other = expected < 1, found < 1
    assert 0.1 < covered.float().mean() < 0.9
    assert (covered != other).float().mean() < 1e-3, "silhouettes"
    assert (expected - found).abs().mean() < 1e-3, "shading"


def test_a_set_is_drawn_on_the_device(device: str, tmp_path: Path) -> None:
    """The pictures of both devices differ by single levels, and the set's version says who drew it."""
    pytest.importorskip("pytorch3d")
    from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
    from fastreid_clip3d.body.synthetic_writer import SyntheticSet

    settings = SyntheticSettings(bodies=2, poses_per_body=2, image_size=(64, 32))
    made = [SyntheticSet(tmp_path / name, settings, 1, where) for name, where in (("cpu", "cpu"), ("other", device))]
    assert (made[0].version == made[1].version) == (device == "cpu")
    for body in range(2):
        expected, found = (one.render_body(body)[0].astype(int) for one in made)
        assert np.abs(expected - found).mean() < 0.5
    assert len(made[1].make(progress=False)) == 4
