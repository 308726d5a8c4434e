"""From dressed people and shots to pictures: visibility, shading, background, and what a camera does to all of it.

Legend: B images of a batch, H x W final size, S supersampling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastreid_clip3d.body.constants import Framing
from fastreid_clip3d.body.rasterizer import visible_surface
from fastreid_clip3d.synthcc.background import paint_background
from fastreid_clip3d.synthcc.camera import Shot, View, aim, key_light_direction
from fastreid_clip3d.synthcc.dressing import Dressed
from fastreid_clip3d.synthcc.exposure import through_camera
from fastreid_clip3d.synthcc.occluders import paint_occluder
from fastreid_clip3d.synthcc.posing import Posed, pose_person
from fastreid_clip3d.synthcc.shading import shade, tables, unit_vectors

NOTHING: int = 255
"""Value of `parts` where no person is."""

IMAGES_AT_ONCE: int = 16
"""Images that a set renders together. Part of the format: they share the depth of what lies far away."""

PIXELS_AT_ONCE: int = 1 << 15
"""Covered pixels that are shaded at once, so that the working set stays inside the caches."""


@dataclasses.dataclass
class Pictures:
    """images uint8 [B, 3, H, W] RGB; mask bool [B, H, W], the person's visible pixels; parts uint8 [B, H, W]."""

    images: Tensor
    mask: Tensor
    parts: Tensor


Shader = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""The arguments of :func:`shading.shade` before `materials`, in its order; returns linear RGB [N, 3]."""


def render(
    people: list[Dressed],
    shots: list[Shot],
    poses: np.ndarray,
    streams: list[np.random.Generator],
    height: int,
    width: int,
    framing: Framing,
    supersampling: int = 2,
) -> Pictures:
    """Renders B images: one of each person, by the shot and with the random stream (scene, noise) at the same place.

    `poses` is the pose pool, float [K, 72]. A pixel is the mean of `supersampling` x `supersampling` rendered ones.
    """
    posed = [pose_person(person, poses[shot.pose], shot.heading) for person, shot in zip(people, shots)]
    views = [aim(shot, body.vertices, framing, height / width) for shot, body in zip(shots, posed)]
    shader = partial(shade, materials=tables(people, shots))
    return draw(posed, views, shots, streams, shader, height, width, supersampling)


def draw(
    posed: list[Posed],
    views: list[View],
    shots: list[Shot],
    streams: list[np.random.Generator],
    shader: Shader,
    height: int,
    width: int,
    supersampling: int = 2,
) -> Pictures:
    """Draws B images of posed meshes, each before its own scene; `shader` colours the meshes."""
    big_height, big_width = height * supersampling, width * supersampling
    seen = []
    for body, view in zip(posed, views):
        points = view.to_view(body.vertices).astype(np.float32)
        points[:, :2] = points[:, :2] * (view.focal / points[:, 2:]) + view.principal.astype(np.float32)
        seen.append(points)
    counts = torch.tensor([len(body.faces) for body in posed])
    starts = np.cumsum([0, *(len(body.vertices) for body in posed)])
    # Columns of all people, one after the other: torch reads and mixes columns several times faster than rows.
    faces = _columns([body.faces + start for body, start in zip(posed, starts)])
    places = _columns(seen)
    covered, face, bary, depth = visible_surface(
        torch.cat([places.index_select(1, row) for row in faces]),
        torch.cumsum(counts, 0) - counts,
        counts,
        (big_height, big_width),
    )
    image = covered // (big_height * big_width)
    depths = torch.full((len(posed) * big_height * big_width,), -1.0).index_copy_(0, covered, depth)
    occlusion = _occlusion(depths.view(-1, big_height, big_width), supersampling).reshape(-1).index_select(0, covered)
    features = torch.cat(
        (
            *(_columns([getattr(body, name) for body in posed]) for name in ("canonical", "normals", "vertices")),
            torch.from_numpy(np.concatenate([body.edge for body in posed]))[None],
        )
    )
    part = torch.from_numpy(np.concatenate([body.face_part for body in posed])).index_select(0, face)
    centres = torch.from_numpy(np.stack([view.centre for view in views], 1).astype(np.float32))
    colours = []
    for start in range(0, len(covered), PIXELS_AT_ONCE):
        some = slice(start, start + PIXELS_AT_ONCE)
        corners = faces.index_select(1, face[some])
        of_corners = [features.index_select(1, row) * share for row, share in zip(corners, bary[:, some])]
        mixed = of_corners[0] + of_corners[1] + of_corners[2]
        toward = unit_vectors(centres.index_select(1, image[some]) - mixed[6:9])
        normals = unit_vectors(mixed[3:6])
        facing = (normals * toward).sum(0)
        normals = torch.where(facing < -0.05, -normals, normals)
        reached = occlusion[some] * torch.where(facing < -0.25, 0.6, 1.0)
        columns = (mixed[:3].t(), normals.t(), mixed[9], toward.t())
        colours.append(shader(*columns, reached, part[some], image[some]))

    canvas = torch.zeros(len(posed) * big_height * big_width, 4)
    canvas[covered, :3] = torch.cat(colours)
    canvas[covered, 3] = 1.0
    canvas = canvas.view(-1, big_height, big_width, 4).permute(0, 3, 1, 2)
    canvas = F.avg_pool2d(canvas, supersampling)
    part_map = torch.full((len(posed) * big_height * big_width,), NOTHING, dtype=torch.uint8)
    part_map[covered] = part.to(torch.uint8)
    middle = slice(supersampling // 2, None, supersampling)
    part_map = part_map.view(-1, big_height, big_width)[:, middle, middle].clone()
    return _before_scenes(canvas, part_map, posed, views, shots, streams, height, width)


def _columns(parts: list[np.ndarray]) -> Tensor:
    """Rows [n, D] of several arrays as columns [D, N] of one tensor."""
    return torch.from_numpy(np.concatenate(parts).T.copy())


def _occlusion(depth: Tensor, supersampling: int) -> Tensor:
    """Light from around that reaches a pixel [B, H, W]: less where the neighbourhood stands nearer to the camera.

    Evaluated at the final resolution, where it is smooth anyway.
    """
    step = supersampling
    coarse = depth[:, None, step // 2 :: step, step // 2 :: step]
    present = (coarse > 0).float()
    far = coarse.amax() + 0.3
    filled = torch.where(coarse > 0, coarse, far)
    result = torch.ones_like(coarse)
    for radius, reach in ((1, 0.06), (3, 0.14)):
        radius = radius * coarse.shape[2] // 128 or 1
        mean, share = _box_mean(filled, radius), _box_mean(present, radius)
        mean = (mean - far * (1 - share)) / share.clamp_min(1e-3)
        result = result * (1 - 0.45 * ((filled - mean - 0.01) / reach).clamp(0, 1))
    return F.interpolate(result, depth.shape[1:], mode="bilinear", align_corners=False)[:, 0]


def _box_mean(image: Tensor, radius: int) -> Tensor:
    """Mean over a square of half-width `radius`, of [B, 1, H, W]."""
    padded = F.pad(image, (radius, radius, radius, radius), mode="replicate")
    size = 2 * radius + 1
    height, width, zero = image.shape[2], image.shape[3], torch.zeros(())
    rows = sum((padded[:, :, shift : shift + height] for shift in range(size)), zero)
    return sum((rows[:, :, :, shift : shift + width] for shift in range(size)), zero) / size**2


def _before_scenes(
    canvas: Tensor,
    parts: Tensor,
    posed: list[Posed],
    views: list[View],
    shots: list[Shot],
    streams: list[np.random.Generator],
    height: int,
    width: int,
) -> Pictures:
    """Puts each person before a scene, something before some people, and all through the camera.

    `canvas` [B, 4, H, W] is linear RGB and coverage, `parts` [B, H, W] what the covered pixels show.
    """
    scenes, noises, covers = [], [], []
    for body, view, shot, rng in zip(posed, views, shots, streams):
        light = key_light_direction(shot)
        scenes.append(paint_background(rng, view, height, width, shot.outdoor, body.feet, light) ** 2.2)
        covers.append(paint_occluder(rng, height, width) if shot.occluded else None)
        noises.append(rng.standard_normal((3, height, width), dtype=np.float32))
    scene = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2)
    alpha = canvas[:, 3:]
    linear = canvas[:, :3] + scene * (1 - alpha)
    visible = alpha[:, 0] > 0.5
    for row, cover in enumerate(covers):
        if cover is not None:
            colour, amount = torch.from_numpy(cover[0] ** 2.2).permute(2, 0, 1), torch.from_numpy(cover[1])
            linear[row] = linear[row] * (1 - amount) + colour * amount
            visible[row] &= amount < 0.5
    visible &= parts != NOTHING
    parts[~visible] = NOTHING
    return Pictures(through_camera(linear, shots, torch.from_numpy(np.stack(noises))), visible, parts)
