"""Patterns of cloth as functions of canonical coordinates, so that they stick to the garment whatever the pose.

Legend: N pixels, M materials. Canonical coordinates: metres in the T-pose of the average body, y up, z forwards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreid_clip3d.synthcc.wardrobe import PATTERNS

_DIRECTIONS = torch.tensor([[1.0, 0.3, 0.2], [-0.4, 1.0, 0.3], [0.5, -0.7, 0.6], [0.1, 0.6, -1.0], [0.8, 0.8, 0.5]])


def soft_step(value: Tensor, width: float) -> Tensor:
    """0 below zero, 1 above, over `width`."""
    return (value / width + 0.5).clamp(0, 1)


def waves(points: Tensor, period: Tensor, phase: Tensor) -> Tensor:
    """A smooth irregular field in about [-1, 1] with features of `period` metres: a few sines in fixed directions."""
    k = points.t() / period
    warped = k + 0.35 * torch.sin(4.1 * k.roll(1, 0) + 9.0 * phase)
    angles = 6.2832 * (_DIRECTIONS @ warped) * 0.7 + (torch.arange(1, 6) * 7.3)[:, None] * phase
    return torch.sin(angles).sum(0) * 0.42


def paint(points: Tensor, pattern: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    """Colours [N, 3] (sRGB) of cloth at canonical coordinates [N, 3].

    `pattern` int64 [N] indexes :data:`~fastreid_clip3d.synthcc.wardrobe.PATTERNS`; `colours` [N, 3, 3] are base, second
    and third; `scale` and `phase` [N] are metres of one repeat and a random shift in 0..1.
    """
    result = colours[:, 0].clone()
    for name, painter in _PAINTERS.items():
        rows = (pattern == PATTERNS.index(name)).nonzero().squeeze(1)
        if len(rows):
            result[rows] = painter(points[rows], colours[rows], scale[rows], phase[rows])
    return result


def _blend(colours: Tensor, which: int, amount: Tensor, base: Tensor | None = None) -> Tensor:
    base = colours[:, 0] if base is None else base
    return base + (colours[:, which] - base) * amount[:, None]


def _bands(coordinate: Tensor, share: Tensor | float, soft: float = 0.08) -> Tensor:
    """1 in the first `share` of every unit of `coordinate`."""
    place = coordinate - coordinate.floor()
    return ((share - (place - 0.5).abs() * 2) / soft + 0.5).clamp(0, 1)


def _around(points: Tensor) -> Tensor:
    """A coordinate around the body: x at the front and back, with some depth so that the sides are not smeared."""
    return points[:, 0] + 0.6 * points[:, 2] * torch.sign(points[:, 0])


def _down(points: Tensor) -> Tensor:
    """A coordinate along the cloth's fall: height on the body, length along the sleeves."""
    return points[:, 1] - (points[:, 0].abs() - 0.20).clamp_min(0) * (points[:, 1] > 0.3).float()


def _stripes(points: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    return _blend(colours, 1, _bands(_down(points) / scale + phase, 0.25 + 0.3 * phase))


def _pinstripes(points: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    return _blend(colours, 1, 0.7 * _bands(_around(points) / scale + phase, 0.22, 0.2))


def _check(points: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    across, along = _bands(_around(points) / scale + phase, 0.45), _bands(_down(points) / scale, 0.45)
    cloth = _blend(colours, 1, 0.5 * (across + along))
    thin = torch.maximum(_bands(_around(points) / scale + phase + 0.5, 0.1), _bands(_down(points) / scale + 0.5, 0.1))
    return _blend(colours, 2, 0.6 * thin, cloth)


def _dots(points: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    row = points[:, 1] / scale
    column = _around(points) / scale + 0.5 * (row.floor() % 2)
    distance = torch.hypot(row - row.floor() - 0.5, column - column.floor() - 0.5)
    return _blend(colours, 1, soft_step(0.27 - distance, 0.1))


def _print(points: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    """A printed block on the chest, of one of several outlines, and a smaller one on the back of some."""
    x, y, z = points.unbind(1)
    centre = 0.31 + 0.05 * (phase - 0.5)
    half = 0.085 * scale
    u, v = x / half, (y - centre) / (half * (0.7 + 0.6 * phase))
    square, disc = torch.maximum(u.abs(), v.abs()), torch.hypot(u, v)
    bar = torch.maximum(u.abs() / 1.4, v.abs() / 0.35)
    kind = (phase * 7.0).floor() % 3
    distance = torch.where(kind == 0, square, torch.where(kind == 1, disc, bar))
    cloth = _blend(colours, 1, soft_step(1 - distance, 0.12) * (z > 0).float())
    return _blend(colours, 2, soft_step(0.5 - distance, 0.12) * (z > 0).float() * (phase > 0.3).float(), cloth)


def _block(points: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    """A yoke, a broad band or sleeves of another colour."""
    kind = (phase * 5.0).floor() % 3
    yoke = soft_step(points[:, 1] - 0.36 * scale, 0.006)
    band = soft_step(0.05 - (points[:, 1] - 0.29 * scale).abs(), 0.006)
    sleeves = soft_step(points[:, 0].abs() - 0.19, 0.006)
    amount = torch.where(kind == 0, yoke, torch.where(kind == 1, band, sleeves))
    return _blend(colours, 1, amount)


def _denim(points: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    fade = waves(points, torch.full_like(scale, 0.22), phase)
    weave = waves(points, torch.full_like(scale, 0.018), phase)
    thigh = torch.exp(-(((points[:, 1] + 0.32) / 0.16) ** 2)) * (points[:, 2] > 0).float()
    cloth = _blend(colours, 1, (0.22 * fade + 0.10 * weave + 0.35 * thigh * phase + 0.12).clamp(0, 1))
    seam = soft_step(0.006 - (points[:, 2] + 0.01).abs(), 0.004) * (points[:, 1] < 0).float()
    return cloth * (1 - 0.25 * seam[:, None])


def _flowers(points: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    field = waves(points, 0.8 * scale, phase)
    cloth = _blend(colours, 1, soft_step(field - 0.42, 0.15))
    return _blend(colours, 2, soft_step(-0.62 - field, 0.15), cloth)


def _heather(points: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    fine, coarse = torch.full_like(scale, 0.014), torch.full_like(scale, 0.033)
    grain = waves(points, fine, phase) + waves(points, coarse, phase + 0.3)
    return (colours[:, 0] * (1 + 0.10 * grain[:, None])).clamp(0, 1)


def _camouflage(points: Tensor, colours: Tensor, scale: Tensor, phase: Tensor) -> Tensor:
    field = waves(points, torch.full_like(scale, 0.16), phase)
    other = waves(points, torch.full_like(scale, 0.12), phase + 0.37)
    cloth = _blend(colours, 1, soft_step(field - 0.2, 0.08))
    return _blend(colours, 2, soft_step(other - 0.35, 0.08), cloth)


_PAINTERS = {
    "stripes": _stripes, "pinstripes": _pinstripes, "check": _check, "dots": _dots, "print": _print, "block": _block,
    "denim": _denim, "flowers": _flowers, "heather": _heather, "camouflage": _camouflage,
}  # fmt: skip
