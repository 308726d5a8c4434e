"""A z-buffer in plain torch that returns PyTorch3D's own Fragments, thousands of times faster on a CPU.

PyTorch3D's CPU rasteriser tries every face for every pixel. Here each face is expanded to the pixel centres of its own
bounding box only, those inside the face compete for their pixel by depth, and the winner's fields are computed with the
same formulas as PyTorch3D's, in the same order of operations, so that masks agree to the last bit.

Legend: N meshes, F faces of all meshes (packed), H x W image, P covered pixels; a candidate is a pair of a face and a
pixel of its bounding box.
"""

from __future__ import annotations

import itertools

import torch
from pytorch3d.renderer import MeshRasterizer
from pytorch3d.renderer.mesh.clip import ClipFrustum, clip_faces, convert_clipped_rasterization_to_original_faces
from pytorch3d.renderer.mesh.rasterizer import Fragments
from pytorch3d.structures import Meshes

AREA_EPSILON = 1e-8
"""PyTorch3D's bound for degenerate faces and for faces that reach behind the camera, and its guard of divisions."""

CANDIDATES_AT_ONCE = 1 << 15
"""Pairs of a face and a pixel expanded at once: bounds memory, and keeps the working set inside the caches."""


class CpuMeshRasterizer(MeshRasterizer):
    """PyTorch3D's :class:`MeshRasterizer` with a fast path for CPU tensors; same arguments, same :class:`Fragments`.

    The fast path serves ``faces_per_pixel == 1`` and ``blur_radius == 0`` on a CPU, for perspective and orthographic
    cameras, with culling and near-plane clipping. Everything else (CUDA, blur, several faces per pixel) is PyTorch3D's
    own path. Where two faces have exactly the same depth at a pixel, the face of the smaller index is returned, as in
    PyTorch3D. ``zbuf``, ``bary_coords`` and ``dists`` carry gradients to the vertices, as PyTorch3D's do.
    """

    def forward(self, meshes_world: Meshes, **kwargs) -> Fragments:
        """Rasterises N meshes into N images.

        Returns:
            Fragments with pix_to_face int64 [N, H, W, 1] (packed face indices), zbuf [N, H, W, 1] (depth in view
            space, in the world's unit), bary_coords [N, H, W, 1, 3] and dists [N, H, W, 1] (minus the squared distance
            to the nearest edge, in NDC); -1 in all of them where no face is.
        """
        settings = kwargs.get("raster_settings", self.raster_settings)
        if meshes_world.device.type != "cpu" or settings.blur_radius > 0 or settings.faces_per_pixel != 1:
            return super().forward(meshes_world, **kwargs)

        cameras = kwargs.get("cameras", self.cameras)
        projected = self.transform(meshes_world, **kwargs)
        perspective_correct = settings.perspective_correct
        if perspective_correct is None:
            perspective_correct = cameras.is_perspective()
        size = settings.image_size
        image_size = (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))

        return Fragments(
            *rasterize_face_vertices(
                *_packed_face_vertices(projected),
                image_size,
                perspective_correct=bool(perspective_correct),
                clip_barycentric=bool(settings.clip_barycentric_coords),
                cull_backfaces=settings.cull_backfaces,
                near=_near_plane(settings, cameras, perspective_correct),
                cull_to_frustum=settings.cull_to_frustum,
            )
        )


def _packed_face_vertices(meshes: Meshes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices of all faces [F, 3, 3], each mesh's first face [N] and number of faces [N].

    Meshes of equal size, such as bodies, are read from their padded form: packing costs more than rasterising.
    """
    if not meshes.equisized:
        faces = meshes.verts_packed()[meshes.faces_packed()]
        return faces, meshes.mesh_to_faces_packed_first_idx(), meshes.num_faces_per_mesh()
    vertices, faces = meshes.verts_padded(), meshes.faces_padded()
    count, num_faces = faces.shape[:2]
    offsets = torch.arange(count)[:, None, None] * vertices.shape[1]
    rows = vertices.reshape(-1, 3).index_select(0, (faces + offsets).reshape(-1))
    return rows.view(-1, 3, 3), torch.arange(count) * num_faces, torch.full((count,), num_faces)


def _near_plane(settings, cameras, perspective_correct: bool) -> float | None:
    """The depth at which faces are cut, or None: given, or half the camera's own near plane, as in PyTorch3D."""
    if settings.z_clip_value is not None:
        return float(settings.z_clip_value)
    near = cameras.get_znear()
    if not perspective_correct or near is None:
        return None
    return float(near.min() if isinstance(near, torch.Tensor) else near) / 2


def rasterize_face_vertices(
    face_vertices: torch.Tensor,
    first_face: torch.Tensor,
    faces_per_mesh: torch.Tensor,
    image_size: tuple[int, int],
    perspective_correct: bool,
    clip_barycentric: bool = False,
    cull_backfaces: bool = False,
    near: float | None = None,
    cull_to_frustum: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rasterises faces [F, 3, 3] (x, y in PyTorch3D's NDC, z = depth) of N meshes; see :class:`CpuMeshRasterizer`.

    Args:
        face_vertices: float32 [F, 3, 3], the faces of all meshes one mesh after the other.
        first_face: int64 [N], index of each mesh's first face.
        faces_per_mesh: int64 [N]; zero for a mesh without faces.
        image_size: height and width in pixels.
        near: faces are cut at this depth, None for no cut.

    Returns:
        pix_to_face, zbuf, bary_coords and dists of :class:`Fragments`.
    """
    clipped = None
    if cull_to_frustum or (near is not None and bool((face_vertices[..., 2] < near).any())):
        frustum = ClipFrustum(
            left=-1,
            right=1,
            top=-1,
            bottom=1,
            perspective_correct=perspective_correct,
            z_clip_value=near,
            cull=cull_to_frustum,
        )
        clipped = clip_faces(face_vertices, first_face, faces_per_mesh, frustum=frustum)
        face_vertices = clipped.face_verts
        first_face, faces_per_mesh = clipped.mesh_to_face_first_idx, clipped.num_faces_per_mesh

    height, width = image_size
    num_meshes = len(first_face)
    pixel_face = _nearest_faces(
        face_vertices.detach(),
        first_face,
        faces_per_mesh,
        image_size,
        perspective_correct,
        clip_barycentric,
        cull_backfaces,
    )
    covered = (pixel_face >= 0).nonzero().squeeze(1)
    winners = pixel_face[covered]
    column = covered % width
    row = (covered // width) % height
    columns, rows = _pixel_centres(image_size, face_vertices.dtype)
    # Flipped lookups: PyTorch3D's NDC points left and up, images are stored from the top left.
    barycentric, depth, distance = _winner_fields(
        face_vertices.reshape(-1, 9).index_select(0, winners).t().contiguous(),
        columns[column],
        rows[row],
        perspective_correct,
        clip_barycentric,
    )

    total = num_meshes * height * width
    zbuf = depth.new_full((total,), -1.0).index_copy(0, covered, depth)
    bary_coords = barycentric.new_full((total, 3), -1.0).index_copy(0, covered, barycentric)
    dists = distance.new_full((total,), -1.0).index_copy(0, covered, distance)
    pix_to_face = pixel_face.view(num_meshes, height, width, 1)
    bary_coords = bary_coords.view(num_meshes, height, width, 1, 3)
    if clipped is not None:
        pix_to_face, bary_coords = convert_clipped_rasterization_to_original_faces(pix_to_face, bary_coords, clipped)
    shape = (num_meshes, height, width, 1)
    return pix_to_face, zbuf.view(shape), bary_coords, dists.view(shape)


def _pixel_centres(image_size: tuple[int, int], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """NDC x of every column and NDC y of every row, in the order in which an image is stored.

    The shorter side spans [-1, 1], the longer one more; +x points left and +y up.
    """
    height, width = image_size

    def centres(count: int, other: int) -> torch.Tensor:
        span = torch.tensor(2.0, dtype=dtype)
        if count > other:
            span = span * count / other
        half = span / 2
        return (-half + (span * torch.arange(count, dtype=dtype) + half) / count).flip(0)

    return centres(width, height), centres(height, width)


def _pixel_range(low: torch.Tensor, high: torch.Tensor, count: int, other: int) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last stored pixel whose centre may lie in the NDC interval [low, high]; last < first for none.

    One thousandth of a pixel is added at both ends, so that rounding cannot lose a pixel: the inside test decides.
    """
    scale = min(count, other) / 2
    middle = (count - 1) / 2
    # Infinite or huge coordinates are clamped before they become integers.
    first = (middle - high * scale - 1e-3).ceil_().clamp_(0, count)
    last = (middle - low * scale + 1e-3).floor_().clamp_(-1, count - 1)
    return first.to(torch.int32), last.to(torch.int32)


def _edge(
    x: torch.Tensor, y: torch.Tensor, ax: torch.Tensor, ay: torch.Tensor, bx: torch.Tensor, by: torch.Tensor
) -> torch.Tensor:
    """Twice the signed area of the triangle (a, b, point)."""
    return (x - ax) * (by - ay) - (y - ay) * (bx - ax)


def _nearest_faces(
    face_vertices: torch.Tensor,
    first_face: torch.Tensor,
    faces_per_mesh: torch.Tensor,
    image_size: tuple[int, int],
    perspective_correct: bool,
    clip_barycentric: bool,
    cull_backfaces: bool,
) -> torch.Tensor:
    """Packed index of the nearest face at every pixel, int64 [N * H * W], -1 where none is."""
    height, width = image_size
    num_meshes = len(first_face)
    empty = torch.iinfo(torch.int64).max
    keys = torch.full((num_meshes * height * width,), empty, dtype=torch.int64)
    if face_vertices.shape[0] == 0:
        return torch.full_like(keys, -1)

    table = face_vertices.reshape(-1, 9).t().contiguous()
    x0, y0, z0, x1, y1, z1, x2, y2, z2 = table
    area = _edge(x2, y2, x0, y0, x1, y1)
    left, right = _pixel_range(
        torch.minimum(torch.minimum(x0, x1), x2), torch.maximum(torch.maximum(x0, x1), x2), width, height
    )
    top, bottom = _pixel_range(
        torch.minimum(torch.minimum(y0, y1), y2), torch.maximum(torch.maximum(y0, y1), y2), height, width
    )
    visible = (area if cull_backfaces else area.abs()) > AREA_EPSILON
    visible &= torch.minimum(torch.minimum(z0, z1), z2) >= AREA_EPSILON
    visible &= (right >= left) & (bottom >= top)
    faces = visible.nonzero().squeeze(1)
    if faces.numel() == 0:
        return torch.full_like(keys, -1)

    across = right - left + 1
    counts = (across * (bottom - top + 1))[faces].long()
    ends = counts.cumsum(0)
    first_pixel = torch.repeat_interleave(torch.arange(num_meshes) * (height * width), faces_per_mesh)
    whole = torch.stack((left, top, across, first_pixel.int(), torch.arange(len(area), dtype=torch.int32)))
    # Whole numbers travel as the bits of floats: one gather of one table instead of several.
    table = torch.cat((table, (area + AREA_EPSILON)[None], whole.view(torch.float32))).index_select(1, faces)
    columns, rows = _pixel_centres(image_size, face_vertices.dtype)

    for start, stop in _blocks(ends):
        of_face = torch.repeat_interleave(counts[start:stop])
        fields = table[:, start:stop].index_select(1, of_face)
        left, top, across, first_pixel, face = fields[10:].view(torch.int32)
        before = (ends[start:stop] - counts[start:stop] - (ends[start] - counts[start])).int()
        position = torch.arange(len(of_face), dtype=torch.int32).sub_(before.index_select(0, of_face))
        # Exact, since a float64 holds every whole number of pixels, and faster than a division of whole numbers.
        down = (position.double() / across).int()
        column = position - down * across + left
        row = down + top
        pixel = first_pixel + row * width + column

        x, y = columns.index_select(0, column), rows.index_select(0, row)
        x0, y0, z0, x1, y1, z1, x2, y2, z2, area = fields[:10]
        w0 = _edge(x, y, x1, y1, x2, y2) / area
        w1 = _edge(x, y, x2, y2, x0, y0) / area
        w2 = _edge(x, y, x0, y0, x1, y1) / area
        depth = _depth(w0, w1, w2, z0, z1, z2, perspective_correct, clip_barycentric)[3]
        hit = (torch.minimum(torch.minimum(w0, w1), w2) > 0) & (depth >= 0)
        # The bits of a positive float rise with the float: one integer holds depth first, face index second.
        key = depth.view(torch.int32).long().bitwise_left_shift_(32).bitwise_or_(face)
        keys.scatter_reduce_(0, pixel.long(), torch.where(hit, key, empty), "amin")

    return torch.where(keys == empty, -1, keys & 0xFFFFFFFF)


def _blocks(ends: torch.Tensor) -> list[tuple[int, int]]:
    """Consecutive ranges of faces with about CANDIDATES_AT_ONCE candidates each (a single face may hold more).

    Args:
        ends: int64 [faces], running total of the candidates.
    """
    limits = torch.arange(CANDIDATES_AT_ONCE, int(ends[-1]) + CANDIDATES_AT_ONCE, CANDIDATES_AT_ONCE)
    stops = sorted({0, *(torch.searchsorted(ends, limits) + 1).clamp_(max=len(ends)).tolist(), len(ends)})
    return list(itertools.pairwise(stops))


def _depth(
    w0: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    z0: torch.Tensor,
    z1: torch.Tensor,
    z2: torch.Tensor,
    perspective_correct: bool,
    clip_barycentric: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Final barycentric coordinates and the depth, from the barycentric coordinates in the image plane."""
    if perspective_correct:
        w0, w1, w2 = w0 * z1 * z2, z0 * w1 * z2, z0 * z1 * w2
        total = (w0 + w1 + w2).clamp(min=AREA_EPSILON)
        w0, w1, w2 = w0 / total, w1 / total, w2 / total
    if clip_barycentric:
        w0, w1, w2 = w0.clamp(min=0), w1.clamp(min=0), w2.clamp(min=0)
        total = (w0 + w1 + w2).clamp(min=1e-5)
        w0, w1, w2 = w0 / total, w1 / total, w2 / total
    return w0, w1, w2, w0 * z0 + w1 * z1 + w2 * z2


def _winner_fields(
    winners: torch.Tensor, x: torch.Tensor, y: torch.Tensor, perspective_correct: bool, clip_barycentric: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Barycentric coordinates [P, 3], depth [P] and signed squared distance [P] of winning faces [9, P]."""
    x0, y0, z0, x1, y1, z1, x2, y2, z2 = winners
    area = _edge(x2, y2, x0, y0, x1, y1) + AREA_EPSILON
    w0 = _edge(x, y, x1, y1, x2, y2) / area
    w1 = _edge(x, y, x2, y2, x0, y0) / area
    w2 = _edge(x, y, x0, y0, x1, y1) / area
    w0, w1, w2, depth = _depth(w0, w1, w2, z0, z1, z2, perspective_correct, clip_barycentric)
    distance = torch.minimum(
        torch.minimum(_squared_distance(x, y, x0, y0, x1, y1), _squared_distance(x, y, x0, y0, x2, y2)),
        _squared_distance(x, y, x1, y1, x2, y2),
    )
    return torch.stack((w0, w1, w2), dim=1), depth, -distance


def _squared_distance(
    x: torch.Tensor, y: torch.Tensor, ax: torch.Tensor, ay: torch.Tensor, bx: torch.Tensor, by: torch.Tensor
) -> torch.Tensor:
    """Squared distance of points to segments a-b, in NDC."""
    dx, dy = bx - ax, by - ay
    length = dx * dx + dy * dy
    t = ((dx * (x - ax) + dy * (y - ay)) / length.clamp(min=AREA_EPSILON)).clamp(0, 1)
    px, py = x - (ax + t * dx), y - (ay + t * dy)
    end = (x - bx) ** 2 + (y - by) ** 2
    return torch.where(length <= AREA_EPSILON, end, px * px + py * py)
