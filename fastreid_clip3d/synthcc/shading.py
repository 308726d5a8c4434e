"""Colours of the covered pixels: cloth, skin, face and light, evaluated per pixel and not per vertex.

Legend: N covered pixels of all images of a batch, B images, P parts; light is computed in linear RGB.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from fastreid_clip3d.synthcc.camera import CAMERAS, Shot, key_light_direction
from fastreid_clip3d.synthcc.dressing import Dressed
from fastreid_clip3d.synthcc.garments import HAIR, LEGWEAR, NUM_PARTS, OUTER, SHOE, SKIN, SKIRT, TOP
from fastreid_clip3d.synthcc.patterns import paint, soft_step, waves
from fastreid_clip3d.synthcc.wardrobe import PATTERNS


@dataclasses.dataclass
class Materials:
    """Tables of the batch, one row for every (image, part): [B * P, ...], and one for every image: [B, ...]."""

    colours: torch.Tensor  # [B * P, 3, 3]
    pattern: torch.Tensor  # int64 [B * P]
    numbers: torch.Tensor  # [B * P, 5] scale, phase, shine, folds, closure
    # [B, 10] chin, crown, back and front of the head, floor, ankle, neck, hip, depth of the neck, half width of the
    # head
    marks: torch.Tensor
    look: torch.Tensor  # [B, 7] colour of brows and beard, strength of the beard, sock in metres, sling, backpack
    strap: torch.Tensor  # [B, 3] colour
    key: torch.Tensor  # [B, 3] direction to the key light
    light: torch.Tensor  # [B, 2] strength of key and ambient light


def tables(people: list[Dressed], shots: list[Shot]) -> Materials:
    """Collects what the pixels of a batch look up."""
    count = len(people)
    colours = np.zeros((count, NUM_PARTS, 3, 3), dtype=np.float32)
    pattern = np.zeros((count, NUM_PARTS), dtype=np.int64)
    numbers = np.zeros((count, NUM_PARTS, 5), dtype=np.float32)
    marks, look, strap = (
        np.zeros((count, 10), np.float32),
        np.zeros((count, 7), np.float32),
        np.zeros((count, 3), np.float32),
    )
    key, light = np.zeros((count, 3), np.float32), np.zeros((count, 2), np.float32)
    for row, (person, shot) in enumerate(zip(people, shots)):
        for part, cloth in enumerate(person.materials):
            if cloth is not None:
                colours[row, part] = cloth.colours
                pattern[row, part] = PATTERNS.index(cloth.pattern)
                numbers[row, part] = cloth.scale, cloth.phase, cloth.shine, cloth.folds, cloth.closure
        place, outfit = person.figure.marks, person.outfit
        marks[row] = (
            place.chin,
            place.crown,
            place.head_back,
            place.head_front,
            place.floor,
            place.ankle,
            place.neck,
            place.hip,
            place.neck_depth,
            place.head_side,
        )
        bag = outfit.bag.kind if outfit.bag is not None else ""
        look[row] = (
            *(person.look.hair * 0.85),
            person.look.beard,
            outfit.shoes.sock,
            bag == "sling",
            bag == "backpack",
        )
        if bag:
            strap[row] = outfit.bag.cloth.colours[0] * 0.8
        profile = CAMERAS[shot.camera]
        key[row], light[row] = key_light_direction(shot), (profile.key_light, profile.ambient)
    as_tensor = torch.from_numpy
    return Materials(
        as_tensor(colours.reshape(-1, 3, 3)),
        as_tensor(pattern.reshape(-1)),
        as_tensor(numbers.reshape(-1, 5)),
        as_tensor(marks),
        as_tensor(look),
        as_tensor(strap),
        as_tensor(key),
        as_tensor(light),
    )


def shade(
    points: torch.Tensor,
    normals: torch.Tensor,
    edge: torch.Tensor,
    toward: torch.Tensor,
    occlusion: torch.Tensor,
    part: torch.Tensor,
    image: torch.Tensor,
    materials: Materials,
) -> torch.Tensor:
    """Linear RGB [N, 3] of covered pixels.

    Args:
        points: canonical coordinates [N, 3].
        normals: world unit normals [N, 3], turned towards the camera.
        edge: [N] metres to the garment's hem.
        toward: [N, 3] unit vectors to the camera.
        occlusion: [N] share of the surrounding light that arrives, 0..1.
        part, image: int64 [N].
    """
    row = image * NUM_PARTS + part
    colours = materials.colours.view(-1, 9).index_select(0, row).view(-1, 3, 3)
    numbers = materials.numbers.index_select(0, row)
    scale, phase, shine, folds = numbers[:, :4].unbind(1)
    albedo = paint(points, materials.pattern.index_select(0, row), colours, scale.clamp_min(1e-3), phase)
    albedo = _cloth_details(albedo, points, edge, part, image, materials)
    shoe = (part == SHOE).nonzero().squeeze(1)
    albedo[shoe] = _shoes(points[shoe], edge[shoe], image[shoe], colours[shoe], materials)
    skin = (part == SKIN).nonzero().squeeze(1)
    albedo[skin] = _skin(points[skin], albedo[skin], image[skin], colours[skin], materials)
    hair = (part == HAIR).nonzero().squeeze(1)
    strands = waves(
        points[hair] * torch.tensor([1.0, 0.25, 1.0]), torch.full_like(scale[hair], 0.02), image[hair] * 0.13
    )
    albedo[hair] = albedo[hair] * (1 + 0.16 * strands[:, None])
    # Folds tilt the normal a little; they run with the cloth because they are waves of the canonical coordinates.
    stretched = points * torch.tensor([1.0, 0.4, 1.0])
    tilt = torch.stack(
        [
            waves(stretched, torch.full_like(scale, period), phase + shift)
            for period, shift in ((0.16, 0.1), (0.11, 0.5), (0.13, 0.8))
        ],
        1,
    )
    normals = torch.nn.functional.normalize(normals + tilt * folds[:, None], dim=1)
    key = materials.key.index_select(0, image)
    strength = materials.light.index_select(0, image)
    diffuse = ((normals * key).sum(1) * 0.9 + 0.1).clamp_min(0) * (0.35 + 0.65 * occlusion)
    ambient = (0.78 + 0.30 * normals[:, 1]) * occlusion
    half = torch.nn.functional.normalize(key + toward, dim=1)
    gloss = shine * (normals * half).sum(1).clamp_min(0) ** 24 * strength[:, 0]
    light = strength[:, 0] * diffuse * 1.25 + strength[:, 1] * ambient
    return albedo.clamp(0, 1) ** 2.2 * light[:, None] + gloss[:, None] * 0.5


def _cloth_details(albedo, points, edge, part, image, materials):
    """Seams along the hems of clothes, buttons or a zip, and the straps of bags."""
    sewn = ((part == LEGWEAR) | (part == TOP) | (part == OUTER) | (part == SKIRT)).float()
    seam = soft_step(0.007 - (edge - 0.016).abs(), 0.006) * 0.10 + soft_step(0.006 - edge, 0.004) * 0.22
    albedo = albedo * (1 - sewn * seam)[:, None]
    upper = ((part == TOP) | (part == OUTER)).nonzero().squeeze(1)
    points, image, part = points[upper], image[upper], part[upper]
    row = image * NUM_PARTS + part
    neck, hip, depth = (materials.marks[:, column].contiguous()[image] for column in (6, 7, 8))
    sling, pack = (materials.look[:, column].contiguous()[image] for column in (5, 6))
    closed = materials.numbers[:, 4].contiguous()[row] * (points[:, 2] > depth - 0.02) * (points[:, 1] < neck + 0.02)
    x, y, z = points.unbind(1)
    colour = albedo[upper]
    line = soft_step(0.006 - x.abs(), 0.005) * closed
    colour = colour * (1 - 0.35 * line)[:, None]
    place = y / 0.085
    button = soft_step(0.011 - torch.hypot(x, (place - place.round()) * 0.085), 0.004) * closed
    colour = colour + (materials.colours[:, 2][row] - colour) * (0.7 * button)[:, None]
    across = soft_step(0.016 - (x * 0.78 + (y - hip - 0.20) * 0.62).abs(), 0.006) * sling
    ahead = (z > depth + 0.01) | (y > neck - 0.06)
    straight = soft_step(0.016 - (x.abs() - 0.100).abs(), 0.006) * (y > hip + 0.20) * ahead * pack
    has_coat = materials.colours.view(-1, NUM_PARTS, 9)[:, OUTER].sum(1)[image] > 0
    strap = (across + straight).clamp(0, 1) * (has_coat == (part == OUTER)) * (x.abs() < 0.17)
    albedo[upper] = colour + (materials.strap[image] - colour) * strap[:, None]
    return albedo


def _shoes(points, edge, image, colours, materials):
    marks = materials.marks[image]
    albedo = colours[:, 0].clone()
    sole = soft_step(marks[:, 4] + 0.016 - points[:, 1], 0.006)[:, None]
    albedo = albedo + (colours[:, 1] - albedo) * sole
    sock_length = materials.look[image, 4]
    sock = (soft_step(sock_length - edge, 0.004) * (sock_length > 0).float())[:, None]
    return albedo + (colours[:, 2] - albedo) * sock


def _skin(points, albedo, image, colours, materials):
    """Face, and a little more red where skin is thin. Places are shares of the head of the average body."""
    marks, look = materials.marks[image], materials.look[image]
    chin, crown, back, front = marks[:, 0], marks[:, 1], marks[:, 2], marks[:, 3]
    up = (points[:, 1] - chin) / (crown - chin)
    side = points[:, 0].abs()
    face = ((points[:, 2] - back) / (front - back) > 0.70).float() * (up > 0).float()
    height = crown - chin

    def oval(x: float, y: float, half_x: float, half_y: float) -> torch.Tensor:
        distance = torch.sqrt(((side - x) / half_x) ** 2 + ((up - y) * height / half_y) ** 2)
        return soft_step(1 - distance, 0.35) * face

    result = albedo
    blush = oval(0.040, FACE["cheek"], 0.022, 0.018)[:, None]
    result = result * (1 - blush * torch.tensor([0.0, 0.06, 0.05]))
    socket = oval(0.032, FACE["eye"] + 0.02, 0.022, 0.016)[:, None]
    result = result * (1 - 0.16 * socket)
    white = oval(0.032, FACE["eye"], 0.0145, 0.0065)[:, None]
    result = result + (0.80 - result) * white * 0.9
    iris = oval(0.032, FACE["eye"], 0.0068, 0.0072)[:, None]
    result = result + (colours[:, 2] - result) * iris
    lid = oval(0.032, FACE["eye"] + 0.030, 0.016, 0.0026)[:, None]
    result = result * (1 - 0.6 * lid)
    brow = oval(0.033, FACE["brow"], 0.019, 0.0042)[:, None]
    result = result + (look[:, :3] * 0.8 - result) * brow * 0.8
    nostril = oval(0.008, FACE["nose"], 0.006, 0.004)[:, None]
    result = result * (1 - 0.4 * nostril)
    beard = (
        soft_step(FACE["beard"] - up + 0.35 * (side / 0.07) ** 2 * 0.5, 0.05)
        * (up > -0.06).float()
        * ((points[:, 2] - back) / (front - back) > 0.42).float()
    )
    beard = beard * look[:, 3]
    result = result + (look[:, :3] - result) * (beard * 0.85)[:, None]
    mouth = oval(0.0, FACE["mouth"], 0.025, 0.0085)[:, None]
    result = result + (colours[:, 1] - result) * mouth
    gap = oval(0.0, FACE["mouth"], 0.022, 0.0016)[:, None]
    return result * (1 - 0.5 * gap)


FACE: dict[str, float] = {"eye": 0.50, "brow": 0.60, "cheek": 0.36, "nose": 0.33, "mouth": 0.19, "beard": 0.24}
"""Heights of the face's features as shares of the way from chin to crown."""
