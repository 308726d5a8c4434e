"""Grey pictures of bodies against PyTorch3D's own renderer, and what framing promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pytorch3d.renderer import BlendParams, HardPhongShader, MeshRasterizer, MeshRenderer, TexturesVertex
from pytorch3d.structures import Meshes
from pytorch3d.utils import ico_sphere

from fastreid_clip3d.body.constants import FRAMINGS
from fastreid_clip3d.body.model import load_body_model
from fastreid_clip3d.body.poses import load_pose_pool
from fastreid_clip3d.body.rasterizer import CpuMeshRasterizer
from fastreid_clip3d.body.rendering import (
    FIXED_HEIGHT,
    GreyRenderer,
    cameras_from_views,
    covered_pixels,
    draw,
    is_closed,
    lights_of,
    points_outwards,
    stand_on_ground,
    to_bytes,
    vertex_normals,
    views_of,
)
from fastreid_clip3d.errors import ClearError

SIZE = (48, 24)


@pytest.fixture(scope="module")
def bodies() -> tuple[torch.Tensor, torch.Tensor]:
    """Three different posed bodies, vertices [3, V, 3] standing on the ground, and their faces."""
    model = load_body_model(gender="female")
    betas = torch.tensor([[2.0] + [0.0] * 9, [0.0] * 10, [-2.0, 1.0] + [0.0] * 8])
    with torch.no_grad():
        vertices = model.pose(betas, load_pose_pool()[[3, 60, 90]])[0]
    return stand_on_ground(vertices), model.faces


def drawn(framing: str, count: int = 3, seed: int = 0):
    return [draw(np.random.default_rng([seed, number]), framing) for number in range(count)]


def stock_pictures(renderer: GreyRenderer, vertices, views, lights) -> torch.Tensor:
    """The same pictures by PyTorch3D alone: its rasteriser, its shader, whole pictures."""
    meshes, cameras, lamps, materials = renderer.scene(vertices, views, lights)
    meshes.textures = TexturesVertex(torch.full_like(vertices, renderer.grey))
    blend = BlendParams(background_color=(renderer.background,) * 3)
    shader = HardPhongShader("cpu", cameras, lamps, materials, blend)
    return MeshRenderer(MeshRasterizer(cameras, renderer.settings(vertices)), shader)(meshes)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_pictures_of_bodies_equal_pytorch3ds(bodies, framing):
    vertices, faces = bodies
    draws = drawn(framing)
    views, lights = views_of(vertices, draws, SIZE, framing), lights_of(draws)
    renderer = GreyRenderer(faces, SIZE, background=0.9)
    theirs = stock_pictures(renderer, vertices, views, lights)
    ours = renderer.render(vertices, views, lights)
    assert ours.shape == (3, *SIZE)
    torch.testing.assert_close(ours, theirs[..., 0].clamp(0, 1), rtol=0, atol=1e-5)
    levels = np.abs(to_bytes(ours).astype(int) - to_bytes(theirs[..., 0]).astype(int))
    assert levels.max() <= 1
    assert (ours < 0.85).float().mean() > 0.1 and ours.std() > 0.05


def test_rasters_of_bodies_equal_pytorch3ds(bodies):
    vertices, faces = bodies
    draws = drawn("crop", seed=1)
    renderer = GreyRenderer(faces, SIZE)
    meshes, cameras, _, _ = renderer.scene(vertices, views_of(vertices, draws, SIZE, "crop"), lights_of(draws))
    settings = renderer.settings(vertices)
    theirs = MeshRasterizer(cameras, settings)(meshes)
    ours = CpuMeshRasterizer(cameras, settings)(meshes)
    assert torch.equal(ours.pix_to_face >= 0, theirs.pix_to_face >= 0)
    other = ours.pix_to_face != theirs.pix_to_face
    assert torch.equal(ours.zbuf[other], theirs.zbuf[other])  # another face only where both are equally far
    torch.testing.assert_close(ours.zbuf, theirs.zbuf, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.bary_coords[~other], theirs.bary_coords[~other], rtol=0, atol=1e-5)


def test_crop_holds_the_whole_body_and_fills_the_picture(bodies):
    vertices, _ = bodies
    for seed in range(5):
        draws = drawn("crop", seed=seed)
        views = views_of(vertices, draws, SIZE, "crop")
        seen = cameras_from_views(views).transform_points_screen(vertices, image_size=(SIZE,) * 3)
        assert seen[..., 0].min() > 0 and seen[..., 0].max() < SIZE[1]
        assert seen[..., 1].min() > 0 and seen[..., 1].max() < SIZE[0]
        extent = seen.amax(1) - seen.amin(1)
        filled = torch.maximum(extent[:, 0] / SIZE[1], extent[:, 1] / SIZE[0])
        wanted = torch.tensor([1 - one.margin for one in draws])
        torch.testing.assert_close(filled, wanted, rtol=0, atol=1e-3)


def test_crop_shifts_the_body_within_its_margin(bodies):
    vertices = bodies[0][:1]
    centre = []
    for shift in (-1.0, 0.0, 1.0):
        one = dataclasses.replace(drawn("crop", 1)[0], margin=0.15, shift=(shift, shift))
        seen = cameras_from_views(views_of(vertices, [one], SIZE, "crop")).transform_points_screen(
            vertices, image_size=(SIZE,)
        )[0]
        centre.append((seen.amax(0) + seen.amin(0))[:2] / 2)
    middle = torch.tensor([SIZE[1] / 2, SIZE[0] / 2])
    torch.testing.assert_close(centre[1], middle, rtol=0, atol=0.05)
    # NDC points left and up; half of the margin of 15 % lies on either side, and the height decides the scale.
    for sign, moved in ((1, centre[0]), (-1, centre[2])):
        assert sign * (moved - middle)[1] == pytest.approx(0.15 * SIZE[0] / 2, abs=0.05)
        assert sign * (moved - middle)[0] == pytest.approx(0.15 * SIZE[1] / 2, abs=0.05)


def test_crop_hides_stature_and_fixed_shows_it(bodies):
    sphere = ico_sphere(2).verts_packed()
    scales = torch.tensor([[0.25, 0.75, 0.2], [0.25, 0.95, 0.2]])  # 1.5 m and 1.9 m tall
    vertices = stand_on_ground(sphere[None] * scales[:, None])
    one = draw(np.random.default_rng(0), "fixed")
    heights = {}
    for framing in FRAMINGS:
        views = views_of(vertices, [one, one], SIZE, framing)
        seen = cameras_from_views(views).transform_points_screen(vertices, image_size=(SIZE,) * 2)
        heights[framing] = seen[..., 1].amax(1) - seen[..., 1].amin(1)
    expected = SIZE[0] * 1.5 / FIXED_HEIGHT
    assert heights["fixed"][0] == pytest.approx(expected, rel=0.1)
    assert heights["fixed"][1] / heights["fixed"][0] == pytest.approx(1.9 / 1.5, rel=0.05)
    assert heights["crop"][0] == pytest.approx(heights["crop"][1].item(), rel=1e-4)


def test_standing_on_the_ground():
    vertices = stand_on_ground(torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0)) * 3 + 7)
    assert vertices[..., 1].amin(1).abs().max() < 1e-5
    middle = vertices.amin(1) + vertices.amax(1)
    assert middle[:, [0, 2]].abs().max() < 1e-5


def test_azimuth_zero_sees_the_front_and_light_comes_from_the_viewer(bodies):
    front = cameras_from_views(torch.tensor([[0.0, 0.0, 5.0, 1.0, 0.0, 0.0]])).get_camera_center()
    assert front[0, 2] > 4.9  # a body in rest faces +z
    draws = drawn("crop", 20)
    towards = lights_of(draws)[:, :3]
    views = torch.tensor([[one.azimuth, 0.0, 5.0, 1.0, 0.0, 0.0] for one in draws])
    centres = torch.nn.functional.normalize(
        cameras_from_views(views).get_camera_center() * torch.tensor([1.0, 0.0, 1.0])
    )
    assert (towards * centres).sum(1).min() > 0.2
    torch.testing.assert_close(towards.norm(dim=1), torch.ones(20))


def test_vertex_normals_equal_pytorch3ds(bodies):
    vertices, faces = bodies
    theirs = Meshes(vertices, faces[None].expand(3, -1, -1)).verts_normals_padded()
    torch.testing.assert_close(vertex_normals(vertices, faces), theirs, rtol=0, atol=1e-5)


def test_covered_pixels_of_empty_and_full_pictures():
    faces = torch.full((3, 2, 3, 1), -1)
    faces[0, 0, 1] = faces[0, 1, 2] = 4
    faces[2] = 7
    pixels, covered = covered_pixels(faces)
    assert covered.sum(1).tolist() == [2, 0, 6]
    assert pixels[0][covered[0]].tolist() == [1, 5] and pixels[2].tolist() == list(range(6))


def test_a_body_out_of_sight_is_plain_background():
    sphere = ico_sphere(1)
    vertices = sphere.verts_packed()[None] + torch.tensor([100.0, 0.0, 0.0])
    views = torch.tensor([[0.0, 0.0, 5.0, 2.0, 0.0, 0.0]])
    picture = GreyRenderer(sphere.faces_packed(), (16, 8), background=0.25).render(
        vertices, views, lights_of(drawn("crop", 1))
    )
    assert (picture == 0.25).all()


def test_back_faces_are_culled_for_closed_surfaces_alone(bodies):
    vertices, faces = bodies
    assert is_closed(faces) and points_outwards(vertices[0], faces)
    assert GreyRenderer(faces, SIZE).settings(vertices).cull_backfaces
    assert not is_closed(faces[1:]) and not is_closed(faces[[0, 0]])
    assert not GreyRenderer(faces[1:], SIZE).settings(vertices).cull_backfaces
    inside_out = faces[:, [0, 2, 1]]
    assert is_closed(inside_out) and not GreyRenderer(inside_out, SIZE).settings(vertices).cull_backfaces


def test_an_unknown_framing_is_named():
    with pytest.raises(ClearError, match="crop, fixed"):
        draw(np.random.default_rng(0), "tight")


def test_bytes_are_rounded_to_the_nearest_level():
    values = torch.tensor([[[0.0, 0.2 / 255, 0.6 / 255, 1.0, 1.2, -0.1]]])
    assert to_bytes(values).tolist() == [[[0, 0, 1, 255, 255, 0]]]
