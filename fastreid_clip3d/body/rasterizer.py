"""A z-buffer in plain torch that returns PyTorch3D's own Fragments, thousands of times faster on a CPU.

PyTorch3D's CPU rasteriser tries every face for every pixel. This one tries a face only for the pixels of its own
bounding box, and keeps the nearest face of each pixel. Depth, barycentric coordinates and distance follow PyTorch3D's
formulas in the same order of operations, so that masks agree to the last bit.

Legend: N meshes, F faces of all meshes (packed), H x W image, P covered pixels; a candidate is a pair of a face and a
pixel of its bounding box.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from pytorch3d.renderer import MeshRasterizer
from pytorch3d.renderer.mesh.clip import ClipFrustum, clip_faces, convert_clipped_rasterization_to_original_faces
from pytorch3d.renderer.mesh.rasterizer import Fragments
from pytorch3d.structures import Meshes
from torch import Tensor

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

    def forward(self, meshes_world: Meshes, **kwargs: Any) -> Fragments:
        """Rasterises N meshes into N images.

        Returns:
            Fragments with pix_to_face int64 [N, H, W, 1] (packed face indices), zbuf [N, H, W, 1] (depth in view
            space, in the world's unit), bary_coords [N, H, W, 1, 3] and dists [N, H, W, 1] (minus the squared distance
            to the nearest edge, in NDC); -1 in all of them where no face is.
        """
        settings: Any = kwargs.get("raster_settings", self.raster_settings)
        if meshes_world.device.type != "cpu" or settings.blur_radius > 0 or settings.faces_per_pixel != 1:
            return super().forward(meshes_world, **kwargs)

        cameras: Any = kwargs.get("cameras", self.cameras)
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


def _packed_face_vertices(meshes: Meshes) -> tuple[Tensor, Tensor, Tensor]:
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


def _near_plane(settings: Any, cameras: Any, perspective_correct: bool) -> float | None:
    """The depth at which faces are cut, or None: given, or half the camera's own near plane, as in PyTorch3D."""
    if settings.z_clip_value is not None:
        return float(settings.z_clip_value)
    near = cameras.get_znear()
    if not perspective_correct or near is None:
        return None
    return float(near.min() if isinstance(near, Tensor) else near) / 2


def rasterize_face_vertices(
    face_vertices: Tensor,
    first_face: Tensor,
    faces_per_mesh: Tensor,
    image_size: tuple[int, int],
    perspective_correct: bool,
    clip_barycentric: bool = False,
    cull_backfaces: bool = False,
    near: float | None = None,
    cull_to_frustum: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rasterises faces [F, 3, 3] (x, y in PyTorch3D's NDC, z = depth) of N meshes, one mesh after the other.

    `first_face` int64 [N] is the index of each mesh's first face; `faces_per_mesh` int64 [N] may be 0. `image_size` is
    height and width in pixels. Faces are cut at the depth `near`; None: nowhere.

    Returns:
        pix_to_face, zbuf, bary_coords and dists of :class:`Fragments`; see :class:`CpuMeshRasterizer`.
    """
    clipped = None
    if cull_to_frustum or (near is not None and bool((face_vertices[..., 2] < near).any())):
        frustum = ClipFrustum(
            left=-1, right=1, top=-1, bottom=1, z_clip_value=near,
            perspective_correct=perspective_correct, cull=cull_to_frustum,
        )  # fmt: skip
        clipped = clip_faces(face_vertices, first_face, faces_per_mesh, frustum=frustum)
        face_vertices = clipped.face_verts
        first_face, faces_per_mesh = clipped.mesh_to_face_first_idx, clipped.num_faces_per_mesh

    height, width = image_size
    shape = (len(first_face), height, width, 1)
    mode = (perspective_correct, clip_barycentric)
    corners = face_vertices.reshape(-1, 9).t().contiguous()
    pixel_face = _nearest_faces(
        corners.detach(), first_face, faces_per_mesh, image_size, *mode, cull_backfaces=cull_backfaces
    )
    covered = (pixel_face >= 0).nonzero().squeeze(1)
    nearest = corners.index_select(1, pixel_face.index_select(0, covered))
    x, y = _centres_of(covered, image_size, corners.dtype)
    barycentric, depth = _fields_of_nearest(nearest, x, y, *mode)
    distance = _distance_of_nearest(nearest, x, y)

    def placed(values: Tensor) -> Tensor:
        """Values [P, ...] at their pixels, -1 at the others."""
        empty = values.new_full((len(pixel_face), *values.shape[1:]), -1.0)
        return empty.index_copy(0, covered, values).view(*shape, *values.shape[1:])

    pix_to_face, bary_coords = pixel_face.view(shape), placed(barycentric.t())
    if clipped is not None:
        pix_to_face, bary_coords = convert_clipped_rasterization_to_original_faces(pix_to_face, bary_coords, clipped)
    return pix_to_face, placed(depth), bary_coords, placed(distance)


def visible_surface(
    corners: Tensor, first_face: Tensor, faces_per_mesh: Tensor, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What :func:`rasterize_face_vertices` finds for a perspective camera, at the P covered pixels only.

    `corners` [9, F] are x, y, z of each face's first corner, then of the others. No face is cut or culled.

    Returns:
        Pixels int64 [P] among the N * H * W, their packed faces int64 [P], barycentric coordinates [3, P], depth [P].
    """
    pixel_face = _nearest_faces(corners, first_face, faces_per_mesh, image_size, True, False, cull_backfaces=False)
    covered = (pixel_face >= 0).nonzero().squeeze(1)
    face = pixel_face.index_select(0, covered)
    x, y = _centres_of(covered, image_size, corners.dtype)
    barycentric, depth = _fields_of_nearest(corners.index_select(1, face), x, y, True, False)
    return covered, face, barycentric, depth


def _centres_of(pixels: Tensor, image_size: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """NDC x and y of pixels int64 [P] among N * H * W."""
    height, width = image_size
    columns, rows = _pixel_centres(image_size, dtype)
    return columns[pixels % width], rows[(pixels // width) % height]


def _pixel_centres(image_size: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """NDC x of every column and NDC y of every row, in the order in which an image is stored.

    The shorter side spans [-1, 1], the longer one more. +x points left and +y up, so both fall along the image.
    """
    height, width = image_size

    def centres(count: int, other: int) -> Tensor:
        span = torch.tensor(2.0, dtype=dtype)
        if count > other:
            span = span * count / other
        half = span / 2
        return (-half + (span * torch.arange(count, dtype=dtype) + half) / count).flip(0)

    return centres(width, height), centres(height, width)


def _pixel_range(low: Tensor, high: Tensor, count: int, other: int) -> tuple[Tensor, Tensor]:
    """First and last stored pixel whose centre may lie in the NDC interval [low, high]; last < first for none.

    One thousandth of a pixel is added at both ends, so that rounding cannot lose a pixel: the inside test decides.
    """
    scale = min(count, other) / 2
    middle = (count - 1) / 2
    # Infinite or huge coordinates are clamped before they become integers.
    first = (middle - high * scale - 1e-3).ceil_().clamp_(0, count)
    last = (middle - low * scale + 1e-3).floor_().clamp_(-1, count - 1)
    return first.to(torch.int32), last.to(torch.int32)


def _edge(x: Tensor, y: Tensor, ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor) -> Tensor:
    """Twice the signed area of the triangle (a, b, point)."""
    return (x - ax) * (by - ay) - (y - ay) * (bx - ax)


def _barycentric(x: Tensor, y: Tensor, corners: Tensor, area: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Barycentric coordinates in the image plane of points [P] in faces [9, P] of twice the area [P]."""
    x0, y0, _, x1, y1, _, x2, y2, _ = corners
    edges = ((x1, y1, x2, y2), (x2, y2, x0, y0), (x0, y0, x1, y1))
    w0, w1, w2 = (_edge(x, y, *edge) / area for edge in edges)
    return w0, w1, w2


def _least(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.minimum(torch.minimum(a, b), c)


def _greatest(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.maximum(a, b), c)


def _nearest_faces(
    corners: Tensor,
    first_face: Tensor,
    faces_per_mesh: Tensor,
    image_size: tuple[int, int],
    perspective_correct: bool,
    clip_barycentric: bool,
    cull_backfaces: bool,
) -> Tensor:
    """Packed index of the nearest of the faces [9, F] at every pixel, int64 [N * H * W], -1 where none is."""
    height, width = image_size
    num_meshes = len(first_face)
    empty = torch.iinfo(torch.int64).max
    keys = torch.full((num_meshes * height * width,), empty, dtype=torch.int64)
    if corners.shape[1] == 0:
        return torch.full_like(keys, -1)

    x0, y0, z0, x1, y1, z1, x2, y2, z2 = corners
    area = _edge(x2, y2, x0, y0, x1, y1)
    left, right = _pixel_range(_least(x0, x1, x2), _greatest(x0, x1, x2), width, height)
    top, bottom = _pixel_range(_least(y0, y1, y2), _greatest(y0, y1, y2), height, width)
    low = _least(z0, z1, z2)
    visible = (right >= left) & (bottom >= top) & (low >= AREA_EPSILON)
    first_pixel = torch.repeat_interleave((torch.arange(num_meshes) * (height * width)).int(), faces_per_mesh)
    boxes = torch.stack((left, top, right - left + 1, bottom - top + 1, first_pixel))
    mode = (image_size, perspective_correct, clip_barycentric)
    faces = (visible & (area > AREA_EPSILON)).nonzero().squeeze(1)
    _draw(keys, corners.index_select(1, faces), boxes.index_select(1, faces), faces, *mode)
    if not cull_backfaces:
        # The faces that look away come second, since most of them lie behind what the others have covered.
        faces = (visible & (area < -AREA_EPSILON)).nonzero().squeeze(1)
        boxes = boxes.index_select(1, faces)
        hidden = _hidden(keys.view(num_meshes, height, width), low.index_select(0, faces), boxes)
        seen = (~hidden).nonzero().squeeze(1)
        faces = faces[seen]
        _draw(keys, corners.index_select(1, faces), boxes.index_select(1, seen), faces, *mode)
    return torch.where(keys == empty, -1, keys & 0xFFFFFFFF)


def _hidden(keys: Tensor, low: Tensor, boxes: Tensor) -> Tensor:
    """Which faces lie behind all that the depth buffer `keys` [N, H, W] holds in their bounding boxes [5, F], bool [F].

    `low` [F] is the least depth of each face. False where that is not certain.
    """
    left, top, across, down, first_pixel = boxes
    farthest = (keys >> 32).int()
    bits = (low * (1 - 1e-5)).view(torch.int32)  # as in a key; less by more than the rounding of interpolated depths
    place = (first_pixel + top * keys.shape[2] + left).long()
    size = torch.maximum(across, down)
    hidden = torch.zeros_like(low, dtype=torch.bool)
    # `farthest` holds the greatest depth in the square of this side below and right of a pixel.
    for side in (1, 2, 4, 8):
        if side > 1:
            half = side // 2
            farthest[:, :, :-half] = torch.maximum(farthest[:, :, :-half], farthest[:, :, half:])
            farthest[:, :-half] = torch.maximum(farthest[:, :-half], farthest[:, half:])
        hidden |= (size <= side) & (bits > farthest.view(-1).index_select(0, place))
    return hidden & (low > 0.01)


def _draw(
    keys: Tensor, corners: Tensor, boxes: Tensor, faces: Tensor,
    image_size: tuple[int, int], perspective_correct: bool, clip_barycentric: bool,
) -> None:  # fmt: skip
    """Draws faces into the depth buffer `keys` int64 [N * H * W].

    Args:
        corners: [9, F], x, y, z of the first corner, then of the others.
        boxes: int32 [5, F], first column, first row, columns, rows of the bounding box, first pixel of the image.
        faces: int64 [F], packed indices.
    """
    if faces.numel() == 0:
        return
    x0, y0, z0, x1, y1, z1, x2, y2, z2 = corners
    left, top, across, down, first_pixel = boxes
    counts = (across * down).long()
    ends = counts.cumsum(0)
    area = _edge(x2, y2, x0, y0, x1, y1)
    sign = area.sign()  # turns the edge functions so that all three are positive inside
    table = torch.stack((
        x1, y1, (y2 - y1) * sign, (x2 - x1) * sign,
        x2, y2, (y0 - y2) * sign, (x0 - x2) * sign,
        x0, y0, (y1 - y0) * sign, (x1 - x0) * sign,
    ))  # fmt: skip
    area = (area + AREA_EPSILON) * sign
    before = (ends - counts).int()
    # Exact, since the floats hold every whole number of pixels, and faster than a division of whole numbers.
    exact = torch.float32 if image_size[0] * image_size[1] < 1 << 23 else torch.float64
    corner_pixel = first_pixel + top * image_size[1] + left
    whole = torch.stack((left, top, across, corner_pixel, before))
    columns, rows = _pixel_centres(image_size, corners.dtype)
    for start, stop in _blocks(ends):
        of_face = torch.repeat_interleave(counts[start:stop])
        left, top, across, pixel, before = whole[:, start:stop].index_select(1, of_face)
        position = torch.arange(int(whole[4, start]), int(ends[stop - 1]), dtype=torch.int32).sub_(before)
        down = (position.to(exact) / across).int()
        column = position - down * across
        x, y = columns.index_select(0, column + left), rows.index_select(0, down + top)
        fields = table[:, start:stop].index_select(1, of_face)
        w0, w1, w2 = ((x - ax) * dy - (y - ay) * dx for ax, ay, dy, dx in fields.view(3, 4, -1))
        hit = (_least(w0, w1, w2) > 0).nonzero().squeeze(1)
        face = of_face.index_select(0, hit) + start
        share = area.index_select(0, face)
        w0, w1, w2 = (w.index_select(0, hit) / share for w in (w0, w1, w2))
        z0, z1, z2 = corners[2::3].index_select(1, face)
        depth = _depth(w0, w1, w2, z0, z1, z2, perspective_correct, clip_barycentric)[3]
        # Positive floats and their bits have the same order, so one integer holds depth first, face index second.
        key = depth.view(torch.int32).long().bitwise_left_shift_(32).bitwise_or_(faces.index_select(0, face))
        pixel = (pixel + down * image_size[1] + column).index_select(0, hit).long()
        keys.scatter_reduce_(0, pixel, torch.where(depth >= 0, key, torch.iinfo(torch.int64).max), "amin")


def _blocks(ends: Tensor) -> list[tuple[int, int]]:
    """Consecutive ranges of faces with about CANDIDATES_AT_ONCE candidates each (a single face may hold more).

    Args:
        ends: int64 [faces], running total of the candidates.
    """
    limits = torch.arange(CANDIDATES_AT_ONCE, int(ends[-1]) + CANDIDATES_AT_ONCE, CANDIDATES_AT_ONCE)
    stops = sorted({0, *(torch.searchsorted(ends, limits) + 1).clamp_(max=len(ends)).tolist(), len(ends)})
    return list(itertools.pairwise(stops))


def _depth(
    w0: Tensor, w1: Tensor, w2: Tensor, z0: Tensor, z1: Tensor, z2: Tensor,
    perspective_correct: bool, clip_barycentric: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
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


def _fields_of_nearest(
    nearest: Tensor, x: Tensor, y: Tensor, perspective_correct: bool, clip_barycentric: bool
) -> tuple[Tensor, Tensor]:
    """Barycentric coordinates [3, P] and depth [P] of the nearest faces [9, P]."""
    x0, y0, z0, x1, y1, z1, x2, y2, z2 = nearest
    area = _edge(x2, y2, x0, y0, x1, y1) + AREA_EPSILON
    w0, w1, w2, depth = _depth(*_barycentric(x, y, nearest, area), z0, z1, z2, perspective_correct, clip_barycentric)
    return torch.stack((w0, w1, w2)), depth


def _distance_of_nearest(nearest: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed squared distance [P] of points to the edges of the nearest faces [9, P]."""
    x0, y0, _, x1, y1, _, x2, y2, _ = nearest
    sides = ((x0, y0, x1, y1), (x0, y0, x2, y2), (x1, y1, x2, y2))
    return -_least(*(_squared_distance(x, y, *side) for side in sides))


def _squared_distance(x: Tensor, y: Tensor, ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor) -> Tensor:
    """Squared distance of points to segments a-b, in NDC."""
    dx, dy = bx - ax, by - ay
    length = dx * dx + dy * dy
    t = ((dx * (x - ax) + dy * (y - ay)) / length.clamp(min=AREA_EPSILON)).clamp(0, 1)
    px, py = x - (ax + t * dx), y - (ay + t * dy)
    end = (x - bx) ** 2 + (y - by) ** 2
    return torch.where(length <= AREA_EPSILON, end, px * px + py * py)
