"""Pictures of grey bodies: cameras, lights and PyTorch3D's Phong shading of the covered pixels (method, Design 3).

World frame: metres, y up, the ground at y = 0, a body in rest pose faces +z. Cameras look at the body from all around.
Legend: B bodies (one picture each), V vertices, F faces, H x W picture, P the most pixels a body of the batch covers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pytorch3d.renderer import DirectionalLights, Materials, PerspectiveCameras, RasterizationSettings
from pytorch3d.renderer.cameras import look_at_view_transform
from pytorch3d.renderer.mesh.rasterizer import Fragments
from pytorch3d.structures import Meshes
from torch import Tensor

from fastreid_clip3d.body.constants import FRAMINGS, Framing
from fastreid_clip3d.body.rasterizer import CpuMeshRasterizer
from fastreid_clip3d.body.synthetic_index import VIEW_FIELDS
from fastreid_clip3d.errors import ClearError

FIXED_DISTANCE = 5.0
FIXED_CENTRE = 1.05
FIXED_HEIGHT = 2.5
"""`fixed` framing, metres: the camera's distance, the height it looks at, and what a picture's height spans there."""


@dataclass(frozen=True)
class Draw:
    """Random numbers of one picture that do not depend on the body, so that a picture can be made again alone."""

    azimuth: float  # degrees around the body; 0 sees its front
    elevation: float  # degrees above the horizon
    distance: float  # metres from the camera to the point it looks at
    margin: float  # share of the picture left free around the body, `crop` only
    shift: tuple[float, float]  # of the body inside that free share, to the left and up, -1..1, `crop` only
    light: tuple[float, float]  # direction towards the light relative to the camera: degrees to its right, degrees up
    ambient: float  # share of the light that has no direction


def draw(generator: np.random.Generator, framing: Framing = "crop") -> Draw:
    """Draws camera and light of one picture from its own generator."""
    check_framing(framing)
    azimuth = generator.uniform(0.0, 360.0)
    elevation = generator.uniform(-5.0, 20.0)
    distance = generator.uniform(4.0, 8.0)
    return Draw(
        azimuth=azimuth,
        elevation=elevation,
        distance=FIXED_DISTANCE if framing == "fixed" else distance,
        margin=generator.uniform(0.03, 0.15),
        shift=(generator.uniform(-1.0, 1.0), generator.uniform(-1.0, 1.0)),
        light=(generator.uniform(-60.0, 60.0), generator.uniform(5.0, 60.0)),
        ambient=generator.uniform(0.30, 0.50),
    )


def check_framing(framing: Framing) -> None:
    """Raises ClearError for a name that is not in :data:`FRAMINGS`."""
    if framing not in FRAMINGS:
        raise ClearError(f"unknown framing {framing!r}: choose one of {', '.join(FRAMINGS)}")


def stand_on_ground(vertices: Tensor) -> Tensor:
    """Moves bodies [B, V, 3] so that the lowest vertex is at y = 0 and the middle of the bounding box at x = z = 0."""
    low, high = vertices.amin(1), vertices.amax(1)
    offset = -(low + high) / 2
    offset[:, 1] = -low[:, 1]
    return vertices + offset[:, None]


def views_of(vertices: Tensor, draws: list[Draw], image_size: tuple[int, int], framing: Framing) -> Tensor:
    """Cameras float32 [B, 6], columns ``synthetic_index.VIEW_FIELDS``, of bodies [B, V, 3] that stand on the ground.

    `image_size` is height and width in pixels.
    """
    check_framing(framing)
    height, width = image_size
    half_height, half_width = height / min(height, width), width / min(height, width)
    views = vertices.new_zeros(len(draws), len(VIEW_FIELDS))
    for row, one in zip(views, draws):
        row[:4] = torch.tensor([one.azimuth, one.elevation, one.distance, 1.0])
    if framing == "fixed":
        views[:, 3] = 2 * half_height * FIXED_DISTANCE / FIXED_HEIGHT
        return views

    seen = cameras_from_views(views).transform_points(vertices)[..., :2]
    low, high = seen.amin(1), seen.amax(1)
    free = torch.tensor([one.margin for one in draws])
    half = torch.tensor([half_width, half_height])
    scale = (2 * half * (1 - free[:, None]) / (high - low)).amin(1, keepdim=True)
    slack = half - scale * (high - low) / 2
    # The body may move inside the free margin, never out of the picture.
    shift = torch.tensor([one.shift for one in draws]) * torch.minimum(slack, free[:, None] * half)
    views[:, 3:4] = scale
    views[:, 4:6] = shift - scale * (low + high) / 2
    return views


def cameras_from_views(views: Tensor) -> PerspectiveCameras:
    """PyTorch3D cameras of views [B, 6]; they look at the point FIXED_CENTRE above the ground."""
    azimuth, elevation, distance = views[:, 0], views[:, 1], views[:, 2]
    rotation, translation = look_at_view_transform(
        dist=distance, elev=elevation, azim=azimuth, at=((0.0, FIXED_CENTRE, 0.0),)
    )
    return PerspectiveCameras(
        R=rotation, T=translation, focal_length=views[:, 3:4].expand(-1, 2), principal_point=views[:, 4:6]
    )


def lights_of(draws: list[Draw]) -> Tensor:
    """Light of every picture, float32 [B, 6], columns ``synthetic_index.LIGHT_FIELDS``."""
    rows = []
    for one in draws:
        turn = np.deg2rad(one.azimuth + one.light[0])
        rise = np.deg2rad(one.light[1])
        direction = (np.cos(rise) * np.sin(turn), np.sin(rise), np.cos(rise) * np.cos(turn))
        rows.append([*direction, one.ambient, 0.95 - one.ambient, 0.05])
    return torch.tensor(np.asarray(rows), dtype=torch.float32)


class GreyRenderer:
    """Renders bodies of one topology as grey pictures with PyTorch3D's rasteriser interface and Phong shading.

    Only covered pixels are shaded: PyTorch3D's lights and material are evaluated at [B, P] surface points, which gives
    the colours of its HardPhongShader for a fraction of the time.

    Args:
        faces: int64 [F, 3], counter-clockwise from outside.
        image_size: height and width in pixels.
        grey: reflectance of the body, 0..1.
        background: value of the plain background, 0..1.
        rasterizer: class of the rasteriser; PyTorch3D's own for comparisons.
    """

    def __init__(
        self,
        faces: Tensor,
        image_size: tuple[int, int] = (256, 128),
        grey: float = 0.75,
        background: float = 1.0,
        rasterizer: type = CpuMeshRasterizer,
    ) -> None:
        self.faces = faces
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.grey = grey
        self.background = background
        self.closed = is_closed(faces)
        self.rasterizer = rasterizer()

    def settings(self, vertices: Tensor) -> RasterizationSettings:
        """How bodies [B, V, 3] are rasterised: of a closed surface only the faces that look at the camera are tried."""
        culls = self.closed and points_outwards(vertices[0], self.faces)
        return RasterizationSettings(
            image_size=self.image_size, blur_radius=0.0, faces_per_pixel=1, cull_backfaces=culls
        )

    def scene(
        self, vertices: Tensor, views: Tensor, lights: Tensor
    ) -> tuple[Meshes, PerspectiveCameras, DirectionalLights, Materials]:
        """PyTorch3D's objects for bodies [B, V, 3], views [B, 6] and lights [B, 6]."""
        device = vertices.device
        meshes = Meshes(vertices, self.faces.to(device)[None].expand(len(vertices), -1, -1))
        lamps = DirectionalLights(
            direction=lights[:, :3],
            ambient_color=lights[:, 3:4].expand(-1, 3),
            diffuse_color=lights[:, 4:5].expand(-1, 3),
            specular_color=lights[:, 5:6].expand(-1, 3),
            device=device,
        )
        return meshes, cameras_from_views(views).to(device), lamps, Materials(shininess=20.0, device=device)

    def render(self, vertices: Tensor, views: Tensor, lights: Tensor) -> Tensor:
        """Grey pictures float32 [B, H, W] in 0..1 of bodies [B, V, 3] (metres, world frame)."""
        meshes, cameras, lamps, materials = self.scene(vertices, views, lights)
        fragments = self.rasterizer(meshes, cameras=cameras, raster_settings=self.settings(vertices))
        pixels, covered = covered_pixels(fragments.pix_to_face)
        points, normals = surface_points(meshes, fragments, pixels)
        diffuse = lamps.diffuse(normals=normals, points=points)
        specular = lamps.specular(normals, points, cameras.get_camera_center(), materials.shininess)
        ambient = lamps.ambient_color[:, None] * materials.ambient_color
        colours = (ambient + materials.diffuse_color * diffuse) * self.grey + materials.specular_color * specular
        height, width = self.image_size
        images = colours.new_full((len(vertices), height * width + 1), self.background)
        # Padding is written to one extra pixel at the end.
        images.scatter_(1, torch.where(covered, pixels, height * width), colours[:, :, 0])
        return images[:, :-1].reshape(-1, height, width).clamp(0, 1)


def is_closed(faces: Tensor) -> bool:
    """Whether every edge of faces [F, 3] is shared by two of them, which run through it in opposite directions."""
    starts = faces.reshape(-1)
    ends = faces.roll(-1, dims=1).reshape(-1)
    count = int(faces.max()) + 1 if faces.numel() else 1
    there, back = starts * count + ends, ends * count + starts
    return torch.equal(there.unique(), back.unique()) and len(there.unique()) == len(there)


def points_outwards(vertices: Tensor, faces: Tensor) -> bool:
    """Whether the faces [F, 3] of a closed surface [V, 3] run counter-clockwise as seen from outside."""
    a, b, c = (vertices - vertices.mean(0))[faces.to(vertices.device)].unbind(1)
    return bool((torch.linalg.cross(a, b) * c).sum() > 0)


def covered_pixels(pix_to_face: Tensor) -> tuple[Tensor, Tensor]:
    """Where faces are in pictures [B, H, W, 1]: pixel positions int64 [B, P], and which are no padding, bool [B, P]."""
    count = len(pix_to_face)
    image, pixel = (pix_to_face.view(count, -1) >= 0).nonzero().unbind(1)
    per_image = torch.bincount(image, minlength=count)
    longest = max(int(per_image.max()), 1)
    rank = torch.arange(len(image), device=image.device) - (per_image.cumsum(0) - per_image)[image]
    pixels = image.new_zeros(count, longest)
    pixels[image, rank] = pixel
    covered = torch.arange(longest, device=image.device)[None] < per_image[:, None]
    return pixels, covered


def surface_points(meshes: Meshes, fragments: Fragments, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Position and normal of the surface at the pixels int64 [B, P] that :func:`covered_pixels` found.

    The B meshes have one topology; `fragments` are their raster [B, H, W, 1].

    Returns:
        Positions [B, P, 3] in the world and normals [B, P, 3], interpolated for Phong shading, not normalised. Both are
        views of tensors whose last axis is P, on which the arithmetic of shading runs several times faster.
    """
    count, longest = pixels.shape
    vertices, faces = meshes.verts_padded(), meshes.faces_padded()
    normals = vertex_normals(vertices, faces[0])
    table = torch.cat((vertices.reshape(-1, 3), normals.reshape(-1, 3)), dim=1).t().contiguous()
    flat = (pixels + torch.arange(count, device=pixels.device)[:, None] * (fragments.pix_to_face[0].numel())).view(-1)
    # Padding takes face 0: its colour is thrown away.
    face = fragments.pix_to_face.reshape(-1).index_select(0, flat).clamp_(min=0)
    offsets = torch.arange(count, device=pixels.device)[:, None, None] * vertices.shape[1]
    corners = (faces + offsets).reshape(-1, 3).t().contiguous().index_select(1, face)
    barycentric = fragments.bary_coords.reshape(-1, 3).index_select(0, flat).t().contiguous()
    values = sum(table.index_select(1, corner) * weight for corner, weight in zip(corners, barycentric))
    points, normals = values.view(2, 3, count, longest).permute(0, 2, 3, 1).contiguous()
    return points, normals


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals [B, V, 3] of bodies [B, V, 3] with faces [F, 3], weighted by area: those of PyTorch3D's Meshes.

    The bodies lie side by side, so that each face is looked up once for all of them.
    """
    count = len(vertices)
    rows = vertices.transpose(0, 1).reshape(-1, 3 * count)
    a, b, c = (rows.index_select(0, corner).view(-1, count, 3) for corner in faces.unbind(1))
    face_normals = torch.linalg.cross(c - b, a - b).view(-1, 3 * count)
    normals = torch.zeros_like(rows)
    for corner in faces.unbind(1):
        normals.index_add_(0, corner, face_normals)
    normals = torch.nn.functional.normalize(normals.view(-1, count, 3), eps=1e-6, dim=2)
    return normals.transpose(0, 1)


def to_bytes(images: Tensor) -> np.ndarray:
    """Pictures float [B, H, W] in 0..1 as uint8 [B, H, W], rounded to the nearest level."""
    return images.mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8).cpu().numpy()
