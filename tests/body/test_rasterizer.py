"""The fast rasteriser against PyTorch3D's own, on shapes and cameras of many kinds."""

from __future__ import annotations

import pytest
import torch
from pytorch3d.renderer import (
    FoVOrthographicCameras,
    FoVPerspectiveCameras,
    MeshRasterizer,
    PerspectiveCameras,
    RasterizationSettings,
    look_at_view_transform,
)
from pytorch3d.structures import Meshes, join_meshes_as_batch
from pytorch3d.utils import ico_sphere, torus

from fastreid_clip3d.body import rasterizer
from fastreid_clip3d.body.rasterizer import CpuMeshRasterizer

SIZES = [(64, 32), (33, 61), 40, (1, 1)]


def triangle_soup(count: int, spread: float, generator: torch.Generator) -> Meshes:
    """Loose triangles that cut through each other, some of them seen from behind."""
    centres = torch.randn(count, 1, 3, generator=generator) * 0.5
    vertices = (centres + torch.randn(count, 3, 3, generator=generator) * spread).reshape(-1, 3)
    return Meshes([vertices], [torch.arange(3 * count).view(count, 3)])


def scene() -> Meshes:
    """Five meshes of different sizes, one of them without faces."""
    generator = torch.Generator().manual_seed(0)
    dented = ico_sphere(2)
    dented = dented.offset_verts(torch.randn(dented.verts_packed().shape, generator=generator) * 0.08)
    nothing = Meshes([torch.zeros(0, 3)], [torch.zeros(0, 3, dtype=torch.long)])
    large = triangle_soup(30, 2.0, generator)
    meshes = [dented, torus(0.3, 0.8, 10, 16), nothing, triangle_soup(60, 0.3, generator), large]
    return join_meshes_as_batch(meshes, include_textures=False)


def cameras(kind: str):
    rotation, translation = look_at_view_transform(
        dist=torch.tensor([2.7, 2.5, 3.0, 3.0, 2.0]),
        elev=torch.tensor([10.0, -30.0, 0.0, 60.0, 5.0]),
        azim=torch.tensor([0.0, 30.0, 0.0, 200.0, 300.0]),
    )
    view = {"R": rotation, "T": translation}
    if kind == "field of view":
        return FoVPerspectiveCameras(**view, fov=50)
    if kind == "orthographic":
        return FoVOrthographicCameras(**view, max_y=1.2, min_y=-1.2, max_x=1.2, min_x=-1.2)
    if kind == "perspective":
        return PerspectiveCameras(**view, focal_length=2.0, principal_point=((0.1, -0.2),))
    return PerspectiveCameras(
        **view, focal_length=40.0, principal_point=((16.0, 30.0),), in_ndc=False, image_size=((61, 33),)
    )


def assert_same(ours, theirs) -> None:
    assert ours.pix_to_face.dtype == theirs.pix_to_face.dtype
    for name in ("pix_to_face", "zbuf", "bary_coords", "dists"):
        assert getattr(ours, name).shape == getattr(theirs, name).shape, name
    assert torch.equal(ours.pix_to_face, theirs.pix_to_face)
    torch.testing.assert_close(ours.zbuf, theirs.zbuf, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.bary_coords, theirs.bary_coords, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.dists, theirs.dists, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["field of view", "orthographic", "perspective", "screen"])
def test_fragments_equal_pytorch3d(kind, size):
    settings = RasterizationSettings(image_size=size)
    theirs = MeshRasterizer(cameras(kind), settings)(scene())
    ours = CpuMeshRasterizer(cameras(kind), settings)(scene())
    assert (theirs.pix_to_face >= 0).any() and (theirs.pix_to_face[2] < 0).all()
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"cull_backfaces": True},
        {"z_clip_value": 2.5},
        {"z_clip_value": 2.5, "cull_backfaces": True},
        {"cull_to_frustum": True},
        {"perspective_correct": False},
        {"clip_barycentric_coords": True},
    ],
    ids=str,
)
def test_settings_equal_pytorch3d(options):
    settings = RasterizationSettings(image_size=(48, 32), **options)
    theirs = MeshRasterizer(cameras("field of view"), settings)(scene())
    ours = CpuMeshRasterizer(cameras("field of view"), settings)(scene())
    plain = CpuMeshRasterizer(cameras("field of view"), RasterizationSettings(image_size=(48, 32)))(scene())
    if ("cull" in str(options) and "frustum" not in str(options)) or "z_clip_value" in options:
        assert not torch.equal(plain.pix_to_face, ours.pix_to_face)
    assert_same(ours, theirs)


def test_a_face_through_the_camera_plane_is_cut():
    floor = torch.tensor([[-1.0, -0.5, -5.0], [1.0, -0.5, -5.0], [0.0, -0.5, 5.0]])
    mesh = Meshes([floor], [torch.tensor([[0, 1, 2]])])
    rotation, translation = look_at_view_transform(2.0, 0.0, 0.0)
    camera = FoVPerspectiveCameras(znear=0.2, R=rotation, T=translation)
    settings = RasterizationSettings(image_size=32)
    theirs, ours = MeshRasterizer(camera, settings)(mesh), CpuMeshRasterizer(camera, settings)(mesh)
    assert (theirs.pix_to_face >= 0).any()
    assert_same(ours, theirs)


def test_views_that_see_nothing():
    mesh = ico_sphere(1)
    settings = RasterizationSettings(image_size=(16, 8))
    away = PerspectiveCameras(T=((0.0, 0.0, -5.0),))  # the mesh lies behind the camera
    beside = PerspectiveCameras(T=((50.0, 0.0, 5.0),))
    for camera in (away, beside):
        ours = CpuMeshRasterizer(camera, settings)(mesh)
        assert_same(ours, MeshRasterizer(camera, settings)(mesh))
        for field in (ours.pix_to_face, ours.zbuf, ours.bary_coords, ours.dists):
            assert (field == -1).all()


def test_equal_depth_gives_the_smaller_face_index_every_time():
    square = torch.tensor([[-1.0, -1.0, 3.0], [1.0, -1.0, 3.0], [1.0, 1.0, 3.0], [-1.0, 1.0, 3.0]])
    faces = torch.tensor([[2, 3, 0], [0, 1, 2], [0, 1, 2], [2, 3, 0]])
    camera = PerspectiveCameras(focal_length=2.0)
    settings = RasterizationSettings(image_size=31)
    mesh = Meshes([square], [faces])
    ours = CpuMeshRasterizer(camera, settings)(mesh)
    assert set(ours.pix_to_face.unique().tolist()) == {-1, 0, 1}
    assert torch.equal(ours.pix_to_face, MeshRasterizer(camera, settings)(mesh).pix_to_face)


def test_degenerate_and_broken_faces_cover_nothing():
    vertices = torch.tensor([[0.0, 0.0, 2.0], [1.0, 1.0, 2.0], [-1.0, 1.0, 2.0], [float("nan"), 0.0, 2.0]])
    faces = torch.tensor([[0, 0, 1], [0, 1, 3], [1, 2, 3]])
    camera = PerspectiveCameras()
    ours = CpuMeshRasterizer(camera, RasterizationSettings(image_size=16))(Meshes([vertices], [faces]))
    assert (ours.pix_to_face == -1).all()


def test_small_blocks_change_nothing(monkeypatch):
    settings = RasterizationSettings(image_size=(48, 24))
    whole = CpuMeshRasterizer(cameras("perspective"), settings)(scene())
    monkeypatch.setattr(rasterizer, "CANDIDATES_AT_ONCE", 50)
    pieces = CpuMeshRasterizer(cameras("perspective"), settings)(scene())
    assert torch.equal(whole.pix_to_face, pieces.pix_to_face)
    assert torch.equal(whole.zbuf, pieces.zbuf)


def test_gradients_equal_pytorch3d():
    settings = RasterizationSettings(image_size=(24, 16))
    gradients = []
    for kind in (MeshRasterizer, CpuMeshRasterizer):
        mesh = ico_sphere(1)
        vertices = mesh.verts_packed().clone().requires_grad_()
        mesh = Meshes([vertices], [mesh.faces_packed()])
        fragments = kind(PerspectiveCameras(T=((0.05, 0.02, 3.0),), focal_length=2.0), settings)(mesh)
        weights = torch.linspace(0.5, 1.5, fragments.bary_coords.numel()).view_as(fragments.bary_coords)
        ((fragments.bary_coords * weights).sum() + fragments.zbuf.sum()).backward()
        gradients.append(vertices.grad)
    assert gradients[0].abs().max() > 1
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [{"blur_radius": 1e-3}, {"faces_per_pixel": 2}], ids=str)
def test_blur_and_several_faces_take_pytorch3ds_path(options, monkeypatch):
    monkeypatch.setattr(rasterizer, "rasterize_face_vertices", None)  # calling it would fail
    settings = RasterizationSettings(image_size=16, **options)
    camera = PerspectiveCameras(T=((0.0, 0.0, 3.0),))
    assert_same(CpuMeshRasterizer(camera, settings)(ico_sphere(0)), MeshRasterizer(camera, settings)(ico_sphere(0)))
