"""What a person wears: which garments, how they are cut, of which cloth.

An outfit is drawn from its own stream. Of the person it depends on the sex only (skirts and dresses: mostly women's).
Lengths in metres; colours sRGB in 0..1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fastreid_clip3d.synthcc import wardrobe
from fastreid_clip3d.synthcc.seeds import pick
from fastreid_clip3d.synthcc.wardrobe import ClothKind, Colour, Number, TopKind


@dataclasses.dataclass(frozen=True)
class Cloth:
    """A material: `colours` [3, 3] (base, second, third), pattern and how its surface looks."""

    colours: np.ndarray
    pattern: str = "plain"
    scale: float = 0.05  # metres of one repeat
    phase: float = 0.0
    shine: float = 0.05
    folds: float = 0.15  # strength of the folds on the normals
    closure: float = 0.0  # 1 = a line of buttons or a zip down the front


@dataclasses.dataclass(frozen=True)
class Top:
    """A garment of torso and arms. `hem`: metres above the hip joints (negative: below)."""

    cloth: Cloth
    hem: float
    sleeve: float  # share of the way from shoulder to wrist; below 0 = sleeveless
    neck: str  # crew, v, scoop, turtle, collar
    offset: float
    drape: float  # 0 = follows the body, 1 = hangs straight down from the chest
    sleeve_drape: float
    opening: float = 0.0  # half-width of an open front
    hood: bool = False
    length: float = 0.0  # of a coat's or dress's skirt: share of the way from the hips to the ankles, 0 = none
    flare: float = 0.0


@dataclasses.dataclass(frozen=True)
class Legs:
    """Trousers and shorts. `hem`: 0 at the ankle, 1 at the knee, 2 at the hip joint."""

    cloth: Cloth
    hem: float
    waist: float  # metres above the hip joints
    offset: float
    width: float  # 0 = tight, 1 = straight, 1.5 = wide


@dataclasses.dataclass(frozen=True)
class Skirt:
    """A skirt from the waist down; `length` is the share of the way from the hips to the ankles."""

    cloth: Cloth
    length: float
    waist: float
    flare: float


@dataclasses.dataclass(frozen=True)
class Shoes:
    """Both shoes and socks."""

    cloth: Cloth  # colours: upper, sole, sock
    height: float  # of the shaft above the ankle joint
    sock: float  # metres of sock above the shoe


@dataclasses.dataclass(frozen=True)
class Hat:
    cloth: Cloth
    kind: str  # cap, beanie, brim


@dataclasses.dataclass(frozen=True)
class Bag:
    cloth: Cloth
    kind: str  # backpack, sling, hand


@dataclasses.dataclass(frozen=True)
class Outfit:
    """All garments of one outfit; None where there is none. `skirt` and `legs` may go together (tights)."""

    top: Top
    outer: Top | None
    legs: Legs | None
    skirt: Skirt | None
    shoes: Shoes
    hat: Hat | None
    bag: Bag | None


def _colour(rng: np.random.Generator, neutral: float) -> np.ndarray:
    palette = wardrobe.NEUTRALS if rng.random() < neutral else wardrobe.TONES
    colour = _one_of(rng, list(palette.values()))
    return np.clip(colour * np.exp(rng.normal(0, 0.10)) + rng.normal(0, 0.02, 3), 0.03, 0.93)


def _colours(rng: np.random.Generator, neutral: float) -> np.ndarray:
    """Three colours that differ in lightness enough to make a pattern visible."""
    base = _colour(rng, neutral)
    others = []
    for _ in range(2):
        other = _colour(rng, 0.6)
        for _ in range(6):
            if abs(other.mean() - base.mean()) > 0.16:
                break
            other = _colour(rng, 0.7)
        others.append(other)
    return np.stack([base, *others])


def _number(rng: np.random.Generator, value: Number) -> float:
    """A constant as it is, a number between two limits, or one of a list."""
    if isinstance(value, tuple):
        return float(rng.uniform(*value))
    return float(rng.choice(value)) if isinstance(value, list) else value


def _one_of(rng: np.random.Generator, colours: Sequence[Colour]) -> np.ndarray:
    return np.asarray(colours[int(rng.integers(len(colours)))])


def _word(rng: np.random.Generator, value: str | dict[str, float]) -> str:
    """A constant as it is, or one of several words by their chances."""
    return value if isinstance(value, str) else pick(rng, value)


def _cloth(rng: np.random.Generator, kind: ClothKind, **more: float) -> Cloth:
    looks = {name: _number(rng, value) for name, value in kind.looks.items()}
    pattern = pick(rng, kind.patterns)
    colours = _colours(rng, kind.neutral)
    if pattern == "denim":
        colours[0] = np.clip(_one_of(rng, wardrobe.DENIMS) * np.exp(rng.normal(0, 0.1)), 0.03, 0.9)
        colours[1] = np.clip(colours[0] * 1.35 + 0.05, 0, 0.9)
    if pattern == "camouflage":
        colours = np.array(wardrobe.CAMOUFLAGE) * np.exp(rng.normal(0, 0.15, (3, 1)))
    # All scales are drawn, so that the pattern does not decide how many numbers the stream gives.
    scales = {name: float(rng.uniform(*limits)) for name, limits in wardrobe.PATTERN_SCALES.items()}
    scale = scales.get(pattern, wardrobe.PLAIN_SCALE)
    return Cloth(colours=colours, pattern=pattern, scale=scale, phase=float(rng.random()), **looks, **more)


def _sample_top(rng: np.random.Generator, gender: int) -> Top:
    kind = wardrobe.TOPS[pick(rng, wardrobe.TOP_CHANCES[gender])]
    return _cut(rng, kind, usual_hem=_number(rng, wardrobe.USUAL_HEM))


def _sleeve(rng: np.random.Generator, long: float) -> float:
    """A sleeve's length as a share of the arm: long with probability `long`, else rolled up or short."""
    return _number(rng, (0.95, 1.02) if rng.random() < long else (0.28, 0.72))


def _sample_outer(rng: np.random.Generator, top: Top) -> Top | None:
    if top.hood or rng.random() > 0.42:
        return None
    kind = wardrobe.OUTERS[pick(rng, wardrobe.OUTER_CHANCES)]
    opening = _number(rng, (0.03, 0.09)) if rng.random() < 0.55 else 0.0
    over = _cut(rng, kind, usual_sleeve=_number(rng, (0.97, 1.04)), closure=0.0 if opening else 1.0)
    return dataclasses.replace(over, offset=max(top.offset, 0.008) + over.offset, opening=opening)


def _cut(
    rng: np.random.Generator, kind: TopKind, usual_hem: float = 0.0, usual_sleeve: float | None = None, **looks: float
) -> Top:
    """Draws the cloth and the measures of a top; the usual ones where its kind gives none."""
    cloth = _cloth(rng, kind.cloth, **looks)
    hem = usual_hem if kind.hem is None else _number(rng, kind.hem)
    if kind.sleeve is not None:
        sleeve = _number(rng, kind.sleeve)
    else:
        sleeve = _sleeve(rng, kind.long_sleeves) if usual_sleeve is None else usual_sleeve
    return Top(
        cloth=cloth,
        hem=hem,
        sleeve=sleeve,
        neck=_word(rng, kind.neck),
        offset=_number(rng, kind.offset),
        drape=_number(rng, kind.drape),
        sleeve_drape=_number(rng, kind.sleeve_drape),
        hood=kind.hood,
        length=_number(rng, kind.length),
        flare=_number(rng, kind.flare),
    )


def _sample_legs(rng: np.random.Generator, gender: int) -> Legs:
    kind = wardrobe.LEGWEAR[pick(rng, wardrobe.LEGWEAR_CHANCES[gender])]
    waist = _number(rng, (0.05, 0.11))
    return Legs(
        cloth=_cloth(rng, kind.cloth),
        hem=_number(rng, kind.hem),
        waist=waist,
        offset=_number(rng, kind.offset),
        width=_number(rng, kind.width),
    )


def _sample_shoes(rng: np.random.Generator) -> Shoes:
    boots = rng.random() < 0.25
    of_leather = boots or rng.random() < 0.5
    upper = _one_of(rng, wardrobe.LEATHERS) if of_leather else _colour(rng, neutral=0.75)
    sole = _one_of(rng, wardrobe.SOLES)
    sock = _colour(rng, neutral=0.85)
    upper = np.clip(upper * np.exp(rng.normal(0, 0.12)), 0.03, 0.92)
    return Shoes(
        cloth=Cloth(colours=np.stack([upper, sole, sock]), shine=0.25, folds=0.0),
        height=_number(rng, (0.06, 0.22) if boots else (-0.015, 0.015)),
        sock=_number(rng, [0.0, 0.03, 0.09]),
    )


def _sample_length(rng: np.random.Generator) -> float:
    """Length of a skirt or dress as a share of hip to ankle."""
    lengths = {name: _number(rng, limits) for name, limits in wardrobe.LENGTHS.items()}
    return lengths[pick(rng, wardrobe.LENGTH_CHANCES)]


def sample_outfit(rng: np.random.Generator, gender: int) -> Outfit:
    """Draws one outfit for a person of sex `gender` (0 female, 1 male)."""
    top, legs, skirt = _sample_top(rng, gender), None, None
    below = pick(rng, wardrobe.BELOW_CHANCES[gender])
    if below == "legs":
        legs = _sample_legs(rng, gender)
    elif below == "skirt":
        length = _sample_length(rng)
        cloth, waist = _cloth(rng, wardrobe.SKIRT_CLOTH), _number(rng, (0.09, 0.14))
        skirt = Skirt(cloth=cloth, length=length, waist=waist, flare=_number(rng, (0.02, 0.14)))
        top = dataclasses.replace(top, hem=_number(rng, (0.0, 0.07)))
    else:
        top = dataclasses.replace(
            top,
            cloth=_cloth(rng, wardrobe.DRESS_CLOTH),
            hem=0.06,
            length=_sample_length(rng),
            flare=_number(rng, (0.02, 0.16)),
            drape=_number(rng, (0.0, 0.5)),
            hood=False,
            offset=min(top.offset, 0.014),
        )
    if below != "legs" and rng.random() < 0.45:  # tights
        legs = Legs(cloth=_cloth(rng, wardrobe.TIGHTS_CLOTH), hem=-0.1, waist=0.05, offset=0.003, width=0.0)
    outer = _sample_outer(rng, top)
    if outer is not None and top.length and outer.length == 0:
        outer = dataclasses.replace(outer, hem=max(outer.hem, 0.0))
    return Outfit(
        top=top,
        outer=outer,
        legs=legs,
        skirt=skirt,
        shoes=_sample_shoes(rng),
        hat=Hat(_cloth(rng, wardrobe.HAT_CLOTH), pick(rng, wardrobe.HAT_CHANCES)) if rng.random() < 0.16 else None,
        bag=Bag(_cloth(rng, wardrobe.BAG_CLOTH), pick(rng, wardrobe.BAG_CHANCES)) if rng.random() < 0.34 else None,
    )
