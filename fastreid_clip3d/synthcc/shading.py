"""Colours of the covered pixels: cloth, skin, face and light, evaluated per pixel and not per vertex.

Legend: N covered pixels of all images of a batch, B images, P parts; light is computed in linear RGB.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from fastreid_clip3d.synthcc.camera import CAMERAS, Shot, key_light_direction
from fastreid_clip3d.synthcc.dressing import Dressed
from fastreid_clip3d.synthcc.garments import HAIR, LEGWEAR, NUM_PARTS, OUTER, SHOE, SKIN, SKIRT, TOP
from fastreid_clip3d.synthcc.outfit import Cloth
from fastreid_clip3d.synthcc.patterns import paint, soft_step, waves
from fastreid_clip3d.synthcc.wardrobe import PATTERNS


@dataclasses.dataclass
class Lamps:
    """The light of each image of the batch."""

    key: Tensor  # [B, 3], unit vector towards the key light
    key_light: Tensor  # [B], its strength
    ambient: Tensor  # [B], strength of the light from everywhere


@dataclasses.dataclass
class Materials(Lamps):
    """Tables of the batch: [B * P, ...] one row per image and part, [B, ...] one row per image."""

    colours: Tensor  # [B * P, 3, 3], sRGB
    pattern: Tensor  # int64 [B * P]
    scale: Tensor  # these five [B * P]; see outfit.Cloth
    phase: Tensor
    shine: Tensor
    folds: Tensor
    closure: Tensor
    marks: dict[str, Tensor]  # [B] each, metres; see figure.Landmarks
    hair: Tensor  # [B, 3], colour of brows and beard
    beard: Tensor  # [B], 0 none, 1 full
    sock: Tensor  # [B], metres of sock above the shoe
    sling: Tensor  # [B], 1 where a bag hangs on a strap across the chest
    backpack: Tensor  # [B], 1 where a backpack hangs on two straps
    strap: Tensor  # [B, 3], colour


def lamps(shots: list[Shot]) -> Lamps:
    """The light of each shot, as its camera has it."""
    cameras = [CAMERAS[shot.camera] for shot in shots]
    return Lamps(
        key=_table(key_light_direction(shot) for shot in shots),
        key_light=_table(camera.key_light for camera in cameras),
        ambient=_table(camera.ambient for camera in cameras),
    )


def tables(people: list[Dressed], shots: list[Shot]) -> Materials:
    """Collects what the pixels of a batch look up."""
    nothing = Cloth(np.zeros((3, 3)), scale=0.0, shine=0.0, folds=0.0)
    cloths = [cloth or nothing for person in people for cloth in person.materials]
    bags = [person.outfit.bag for person in people]
    return Materials(
        **vars(lamps(shots)),
        colours=_table(cloth.colours for cloth in cloths),
        pattern=torch.tensor([PATTERNS.index(cloth.pattern) for cloth in cloths]),
        **{name: _table(getattr(cloth, name) for cloth in cloths) for name in _CLOTH_FIELDS},
        marks={name: _table(getattr(person.figure.marks, name) for person in people) for name in _MARKS},
        hair=_table(person.look.hair * 0.85 for person in people),
        beard=_table(person.look.beard for person in people),
        sock=_table(person.outfit.shoes.sock for person in people),
        sling=_table(bag is not None and bag.kind == "sling" for bag in bags),
        backpack=_table(bag is not None and bag.kind == "backpack" for bag in bags),
        strap=_table(np.zeros(3) if bag is None else bag.cloth.colours[0] * 0.8 for bag in bags),
    )


def _table(values: Iterable) -> Tensor:
    return torch.from_numpy(np.array(list(values), dtype=np.float32))


_CLOTH_FIELDS = ("scale", "phase", "shine", "folds", "closure")
_MARKS = ("chin", "crown", "head_back", "head_front", "floor", "neck", "hip", "neck_depth")


def shade(
    points: Tensor,
    normals: Tensor,
    edge: Tensor,
    toward: Tensor,
    occlusion: Tensor,
    part: Tensor,
    image: Tensor,
    materials: Materials,
) -> Tensor:
    """Linear RGB [N, 3] of covered pixels, which show a `part` of an `image` (int64 [N]).

    `points` are canonical coordinates [N, 3]; `normals` and `toward` (to the camera) unit vectors [N, 3] in the world,
    the normals turned towards the camera; `edge` [N] metres to the garment's hem; `occlusion` [N] the share of the
    surrounding light that arrives, 0..1.
    """
    row = image * NUM_PARTS + part
    colours = materials.colours.view(-1, 9).t().contiguous().index_select(1, row).view(3, 3, -1).permute(2, 0, 1)
    scale, phase = materials.scale.index_select(0, row), materials.phase.index_select(0, row)
    shine, folds = materials.shine.index_select(0, row), materials.folds.index_select(0, row)
    albedo = paint(points, materials.pattern.index_select(0, row), colours, scale.clamp_min(1e-3), phase)
    albedo = _cloth_details(albedo, points, edge, part, image, materials)
    shoe = (part == SHOE).nonzero().squeeze(1)
    albedo[shoe] = _shoes(points[shoe], edge[shoe], image[shoe], colours[shoe], materials)
    skin = (part == SKIN).nonzero().squeeze(1)
    albedo[skin] = _skin(points[skin], albedo[skin], image[skin], colours[skin], materials)
    hair = (part == HAIR).nonzero().squeeze(1)
    stretched = points[hair] * torch.tensor([1.0, 0.25, 1.0])
    strands = waves(stretched, torch.full_like(scale[hair], 0.02), image[hair] * 0.13)
    albedo[hair] = albedo[hair] * (1 + 0.16 * strands[:, None])
    # Folds tilt the normal a little; they run with the cloth because they are waves of the canonical coordinates.
    cloth = folds.nonzero().squeeze(1)
    stretched = points[cloth] * torch.tensor([1.0, 0.4, 1.0])
    folds, phase = folds[cloth], phase[cloth]
    folds_of_axes = ((0.16, 0.1), (0.11, 0.5), (0.13, 0.8))  # metres of a repeat, shift of the phase
    tilt = [waves(stretched, torch.full_like(folds, period), phase + shift) for period, shift in folds_of_axes]
    tilted = normals.t().index_add(1, cloth, torch.stack(tilt) * folds)
    normals = unit_vectors(tilted).t()
    return lit(albedo, shine, normals, toward, occlusion, image, materials)


def unit_vectors(vectors: Tensor) -> Tensor:
    """Vectors [3, N] over their lengths. torch's normalize takes ten times as long along a first axis of three."""
    x, y, z = vectors
    return vectors / (x * x + y * y + z * z).sqrt().clamp_min(1e-12)


def lit(
    albedo: Tensor,
    shine: Tensor | float,
    normals: Tensor,
    toward: Tensor,
    occlusion: Tensor,
    image: Tensor,
    lights: Lamps,
) -> Tensor:
    """Linear RGB [N, 3] of pixels with sRGB reflectance `albedo` [N, 3] and gloss `shine` [N]; see :func:`shade`."""
    key = lights.key.t().contiguous().index_select(1, image).t()
    key_light, ambient_light = lights.key_light.index_select(0, image), lights.ambient.index_select(0, image)
    diffuse = ((normals * key).sum(1) * 0.9 + 0.1).clamp_min(0) * (0.35 + 0.65 * occlusion)
    ambient = (0.78 + 0.30 * normals[:, 1]) * occlusion
    half = unit_vectors((key + toward).t()).t()
    gloss = shine * (normals * half).sum(1).clamp_min(0) ** 24 * key_light
    light = key_light * diffuse * 1.25 + ambient_light * ambient
    return albedo.clamp(0, 1) ** 2.2 * light[:, None] + gloss[:, None] * 0.5


def _cloth_details(
    albedo: Tensor, points: Tensor, edge: Tensor, part: Tensor, image: Tensor, materials: Materials
) -> Tensor:
    """Seams along the hems of clothes, buttons or a zip, and the straps of bags."""
    sewn = ((part == LEGWEAR) | (part == TOP) | (part == OUTER) | (part == SKIRT)).float()
    seam = soft_step(0.007 - (edge - 0.016).abs(), 0.006) * 0.10 + soft_step(0.006 - edge, 0.004) * 0.22
    albedo = albedo * (1 - sewn * seam)[:, None]
    upper = ((part == TOP) | (part == OUTER)).nonzero().squeeze(1)
    points, image, part = points[upper], image[upper], part[upper]
    row = image * NUM_PARTS + part
    neck, hip, depth = (materials.marks[name][image] for name in ("neck", "hip", "neck_depth"))
    closed = materials.closure[row] * (points[:, 2] > depth - 0.02) * (points[:, 1] < neck + 0.02)
    x, y, z = points.unbind(1)
    colour = albedo[upper]
    line = soft_step(0.006 - x.abs(), 0.005) * closed
    colour = colour * (1 - 0.35 * line)[:, None]
    place = y / 0.085
    button = soft_step(0.011 - torch.hypot(x, (place - place.round()) * 0.085), 0.004) * closed
    colour = colour + (materials.colours[:, 2][row] - colour) * (0.7 * button)[:, None]
    across = soft_step(0.016 - (x * 0.78 + (y - hip - 0.20) * 0.62).abs(), 0.006) * materials.sling[image]
    ahead = (z > depth + 0.01) | (y > neck - 0.06)
    straight = soft_step(0.016 - (x.abs() - 0.100).abs(), 0.006) * (y > hip + 0.20) * ahead * materials.backpack[image]
    has_coat = materials.colours.view(-1, NUM_PARTS, 9)[:, OUTER].sum(1)[image] > 0
    strap = (across + straight).clamp(0, 1) * (has_coat == (part == OUTER)) * (x.abs() < 0.17)
    albedo[upper] = colour + (materials.strap[image] - colour) * strap[:, None]
    return albedo


def _shoes(points: Tensor, edge: Tensor, image: Tensor, colours: Tensor, materials: Materials) -> Tensor:
    albedo = colours[:, 0].clone()
    sole = soft_step(materials.marks["floor"][image] + 0.016 - points[:, 1], 0.006)[:, None]
    albedo = albedo + (colours[:, 1] - albedo) * sole
    sock_length = materials.sock[image]
    sock = (soft_step(sock_length - edge, 0.004) * (sock_length > 0).float())[:, None]
    return albedo + (colours[:, 2] - albedo) * sock


def _skin(points: Tensor, albedo: Tensor, image: Tensor, colours: Tensor, materials: Materials) -> Tensor:
    """Face, and a little more red where skin is thin. Places are shares of the head of the average body."""
    chin, crown, back, front = (materials.marks[name][image] for name in ("chin", "crown", "head_back", "head_front"))
    hair = materials.hair[image]
    up = (points[:, 1] - chin) / (crown - chin)
    side = points[:, 0].abs()
    forward = (points[:, 2] - back) / (front - back)
    face = (forward > 0.70).float() * (up > 0).float()
    height = crown - chin

    def oval(feature: str, side_at: float, half_width: float, half_height: float, above: float = 0.0) -> Tensor:
        """Where the face has a feature [n, 1], 0..1: metres, `above` a share of the head's height."""
        across, along = (side - side_at) / half_width, (up - FACE[feature] - above) * height / half_height
        distance = torch.sqrt(across**2 + along**2)
        return (soft_step(1 - distance, 0.35) * face)[:, None]

    result = albedo
    blush = oval("cheek", side_at=0.040, half_width=0.022, half_height=0.018)
    result = result * (1 - blush * torch.tensor([0.0, 0.06, 0.05]))
    socket = oval("eye", side_at=0.032, half_width=0.022, half_height=0.016, above=0.02)
    result = result * (1 - 0.16 * socket)
    white = oval("eye", side_at=0.032, half_width=0.0145, half_height=0.0065)
    result = result + (0.80 - result) * white * 0.9
    iris = oval("eye", side_at=0.032, half_width=0.0068, half_height=0.0072)
    result = result + (colours[:, 2] - result) * iris
    lid = oval("eye", side_at=0.032, half_width=0.016, half_height=0.0026, above=0.030)
    result = result * (1 - 0.6 * lid)
    brow = oval("brow", side_at=0.033, half_width=0.019, half_height=0.0042)
    result = result + (hair * 0.8 - result) * brow * 0.8
    nostril = oval("nose", side_at=0.008, half_width=0.006, half_height=0.004)
    result = result * (1 - 0.4 * nostril)
    beard = soft_step(FACE["beard"] - up + 0.35 * (side / 0.07) ** 2 * 0.5, 0.05) * (up > -0.06).float()
    beard = beard * (forward > 0.42).float() * materials.beard[image]
    result = result + (hair - result) * (beard * 0.85)[:, None]
    mouth = oval("mouth", side_at=0.0, half_width=0.025, half_height=0.0085)
    result = result + (colours[:, 1] - result) * mouth
    gap = oval("mouth", side_at=0.0, half_width=0.022, half_height=0.0016)
    return result * (1 - 0.5 * gap)


FACE: dict[str, float] = {"eye": 0.50, "brow": 0.60, "cheek": 0.36, "nose": 0.33, "mouth": 0.19, "beard": 0.24}
"""Heights of the face's features as shares of the way from chin to crown."""
