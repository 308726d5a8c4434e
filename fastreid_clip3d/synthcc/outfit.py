"""What a person wears: which garments, how they are cut, of which cloth.

An outfit is drawn from its own stream and does not depend on the person but for the sex (skirts and dresses are mostly,
not only, women's). Lengths in metres; colours sRGB in 0..1.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fastreid_clip3d.synthcc.seeds import pick

NEUTRALS: dict[str, tuple[float, float, float]] = {
    "black": (0.09, 0.09, 0.10),
    "charcoal": (0.20, 0.20, 0.22),
    "grey": (0.45, 0.45, 0.46),
    "light grey": (0.68, 0.68, 0.68),
    "white": (0.88, 0.88, 0.86),
    "navy": (0.12, 0.15, 0.27),
    "beige": (0.74, 0.66, 0.53),
    "brown": (0.34, 0.24, 0.17),
    "khaki": (0.52, 0.47, 0.34),
    "cream": (0.87, 0.82, 0.71),
}
TONES: dict[str, tuple[float, float, float]] = {
    "burgundy": (0.40, 0.12, 0.17),
    "red": (0.68, 0.16, 0.15),
    "rust": (0.64, 0.32, 0.18),
    "mustard": (0.76, 0.58, 0.20),
    "olive": (0.34, 0.35, 0.20),
    "forest": (0.15, 0.29, 0.20),
    "sage": (0.55, 0.61, 0.50),
    "teal": (0.14, 0.40, 0.42),
    "sky": (0.52, 0.67, 0.80),
    "blue": (0.19, 0.33, 0.62),
    "lilac": (0.62, 0.54, 0.70),
    "plum": (0.35, 0.19, 0.34),
    "rose": (0.80, 0.54, 0.56),
    "coral": (0.85, 0.45, 0.38),
    "yellow": (0.85, 0.76, 0.40),
    "mint": (0.62, 0.78, 0.68),
}
DENIMS: tuple[tuple[float, float, float], ...] = (
    (0.17, 0.23, 0.36),
    (0.26, 0.35, 0.50),
    (0.40, 0.50, 0.63),
    (0.13, 0.14, 0.18),
    (0.55, 0.62, 0.70),
)
LEATHERS: tuple[tuple[float, float, float], ...] = (
    (0.08, 0.075, 0.075),
    (0.22, 0.14, 0.10),
    (0.38, 0.25, 0.16),
    (0.50, 0.38, 0.26),
    (0.30, 0.30, 0.31),
)
PATTERNS: tuple[str, ...] = (
    "plain",
    "stripes",
    "pinstripes",
    "check",
    "dots",
    "print",
    "block",
    "denim",
    "flowers",
    "heather",
    "camouflage",
)


@dataclasses.dataclass(frozen=True)
class Cloth:
    """A material: `colours` [3, 3] (base, second, third), pattern and how its surface looks."""

    colours: np.ndarray
    pattern: str = "plain"
    scale: float = 0.05  # metres of one repeat
    phase: float = 0.0
    shine: float = 0.05
    folds: float = 0.15  # strength of the folds on the normals
    trim: float = 0.0  # metres of the second colour along the edges
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
    palette = NEUTRALS if rng.random() < neutral else TONES
    colour = np.asarray(list(palette.values())[int(rng.integers(len(palette)))])
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


def _cloth(rng: np.random.Generator, patterns: dict[str, float], neutral: float = 0.5, **looks: float) -> Cloth:
    pattern = pick(rng, patterns)
    colours = _colours(rng, neutral)
    if pattern == "denim":
        colours[0] = np.clip(np.asarray(DENIMS[int(rng.integers(len(DENIMS)))]) * np.exp(rng.normal(0, 0.1)), 0.03, 0.9)
        colours[1] = np.clip(colours[0] * 1.35 + 0.05, 0, 0.9)
    if pattern == "camouflage":
        green = np.array([(0.32, 0.33, 0.22), (0.20, 0.21, 0.15), (0.46, 0.42, 0.30)])
        colours = green * np.exp(rng.normal(0, 0.15, (3, 1)))
    scale = {
        "stripes": rng.uniform(0.04, 0.12),
        "pinstripes": rng.uniform(0.02, 0.035),
        "check": rng.uniform(0.05, 0.14),
        "dots": rng.uniform(0.04, 0.07),
        "flowers": rng.uniform(0.05, 0.1),
        "print": rng.uniform(0.8, 1.3),
        "block": rng.uniform(0.8, 1.2),
    }.get(pattern, 0.05)
    return Cloth(colours=colours, pattern=pattern, scale=float(scale), phase=float(rng.random()), **looks)


SHIRT_PATTERNS = {
    "plain": 5,
    "stripes": 2,
    "check": 1.0,
    "dots": 0.4,
    "print": 2,
    "block": 0.8,
    "flowers": 0.5,
    "heather": 1.5,
    "pinstripes": 0.5,
    "camouflage": 0.15,
}
BUTTON_PATTERNS = {"plain": 4, "pinstripes": 1.2, "check": 2.5, "denim": 0.7, "flowers": 0.4, "stripes": 0.5}
COAT_PATTERNS = {"plain": 7, "heather": 1.5, "check": 0.6, "block": 1.0, "denim": 0.8, "camouflage": 0.2}
TROUSER_PATTERNS = {"plain": 5, "denim": 5, "heather": 0.8, "pinstripes": 0.4, "check": 0.4, "camouflage": 0.2}
SKIRT_PATTERNS = {"plain": 4, "denim": 1, "check": 1, "stripes": 0.7, "dots": 0.8, "flowers": 1.5}


def _sample_top(rng: np.random.Generator, gender: int) -> Top:
    kinds = {"tee": 4, "shirt": 3, "sweater": 3, "hoodie": 1.6, "tank": 0.5, "polo": 1}
    if gender == 0:
        kinds |= {"tank": 1.6, "blouse": 2, "shirt": 1.5}
    kind = pick(rng, kinds)
    hem = rng.uniform(-0.09, 0.06)
    if kind == "tee":
        return Top(
            _cloth(rng, SHIRT_PATTERNS),
            hem,
            rng.uniform(0.22, 0.45),
            pick(rng, {"crew": 3, "v": 1, "scoop": 0.8}),
            rng.uniform(0.006, 0.014),
            rng.uniform(0.1, 0.9),
            rng.uniform(0.3, 1.0),
        )
    if kind == "shirt":
        cloth = _cloth(rng, BUTTON_PATTERNS, 0.55, closure=1.0)
        return Top(
            cloth,
            hem,
            pick_sleeve(rng, 0.7),
            "collar",
            rng.uniform(0.008, 0.015),
            rng.uniform(0.3, 0.9),
            rng.uniform(0.4, 0.9),
        )
    if kind == "sweater":
        cloth = _cloth(
            rng,
            {"plain": 4, "heather": 2, "stripes": 1.5, "block": 1, "check": 0.3},
            0.5,
            trim=0.0,
            folds=0.2,
            shine=0.02,
        )
        return Top(
            cloth,
            rng.uniform(-0.06, 0.05),
            rng.uniform(0.95, 1.02),
            pick(rng, {"crew": 3, "v": 1, "turtle": 1}),
            rng.uniform(0.012, 0.022),
            rng.uniform(0.3, 1.0),
            rng.uniform(0.5, 1.0),
        )
    if kind == "hoodie":
        cloth = _cloth(rng, {"plain": 5, "print": 2, "heather": 2, "block": 1}, 0.6, folds=0.22, shine=0.02)
        return Top(
            cloth,
            rng.uniform(-0.07, 0.02),
            rng.uniform(0.96, 1.02),
            "crew",
            rng.uniform(0.016, 0.026),
            rng.uniform(0.5, 1.0),
            rng.uniform(0.7, 1.1),
            hood=True,
        )
    if kind == "tank":
        return Top(
            _cloth(rng, SHIRT_PATTERNS),
            hem,
            -0.08,
            pick(rng, {"scoop": 2, "v": 1, "crew": 0.5}),
            rng.uniform(0.004, 0.008),
            rng.uniform(0.0, 0.6),
            0.0,
        )
    if kind == "polo":
        cloth = _cloth(rng, {"plain": 4, "stripes": 2, "heather": 1}, 0.45)
        return Top(
            cloth,
            hem,
            rng.uniform(0.28, 0.42),
            "collar",
            rng.uniform(0.007, 0.012),
            rng.uniform(0.2, 0.8),
            rng.uniform(0.4, 0.8),
        )
    return Top(
        _cloth(rng, SKIRT_PATTERNS, 0.4),
        rng.uniform(-0.06, 0.05),
        pick_sleeve(rng, 0.5),
        pick(rng, {"v": 2, "scoop": 1.5, "crew": 1}),
        rng.uniform(0.008, 0.016),
        rng.uniform(0.3, 1.0),
        rng.uniform(0.6, 1.2),
    )


def pick_sleeve(rng: np.random.Generator, long: float) -> float:
    """A sleeve's length as a share of the arm: long with probability `long`, else rolled up or short."""
    return float(rng.uniform(0.95, 1.02) if rng.random() < long else rng.uniform(0.28, 0.72))


def _sample_outer(rng: np.random.Generator, top: Top) -> Top | None:
    if top.hood or rng.random() > 0.42:
        return None
    kind = pick(rng, {"jacket": 4, "coat": 2, "cardigan": 1.5, "parka": 1.5, "vest": 0.7})
    opening = float(rng.uniform(0.03, 0.09)) if rng.random() < 0.55 else 0.0
    closure = 0.0 if opening else 1.0
    base = max(top.offset, 0.008)
    sleeve = rng.uniform(0.97, 1.04)
    if kind == "jacket":
        cloth = _cloth(rng, COAT_PATTERNS, 0.65, shine=float(rng.choice([0.03, 0.2])), closure=closure)
        return Top(
            cloth,
            rng.uniform(-0.10, 0.02),
            sleeve,
            "collar",
            base + rng.uniform(0.010, 0.018),
            rng.uniform(0.4, 0.9),
            rng.uniform(0.8, 1.1),
            opening,
        )
    if kind == "cardigan":
        cloth = _cloth(rng, {"plain": 4, "heather": 3, "stripes": 0.6}, 0.5, shine=0.02, closure=closure)
        return Top(
            cloth,
            rng.uniform(-0.16, 0.0),
            sleeve,
            "v",
            base + rng.uniform(0.008, 0.013),
            rng.uniform(0.4, 0.9),
            rng.uniform(0.6, 1.0),
            opening,
        )
    if kind == "vest":
        cloth = _cloth(rng, COAT_PATTERNS, 0.6, shine=0.15, closure=closure)
        return Top(
            cloth, rng.uniform(-0.06, 0.04), -0.03, "collar", base + rng.uniform(0.014, 0.022), 0.6, 0.0, opening
        )
    if kind == "parka":
        cloth = _cloth(rng, COAT_PATTERNS, 0.6, folds=0.25, shine=0.1, closure=closure)
        return Top(
            cloth,
            -0.06,
            sleeve,
            "collar",
            base + rng.uniform(0.018, 0.026),
            rng.uniform(0.7, 1.0),
            rng.uniform(1.0, 1.3),
            opening,
            hood=True,
            length=float(rng.uniform(0.10, 0.25)),
            flare=0.02,
        )
    cloth = _cloth(rng, COAT_PATTERNS, 0.7, folds=0.15, closure=closure)
    return Top(
        cloth,
        -0.06,
        sleeve,
        "collar",
        base + rng.uniform(0.012, 0.020),
        rng.uniform(0.5, 0.9),
        rng.uniform(0.8, 1.1),
        opening,
        length=float(rng.uniform(0.22, 0.62)),
        flare=float(rng.uniform(0.0, 0.06)),
    )


def _sample_legs(rng: np.random.Generator, gender: int) -> Legs:
    kind = pick(
        rng,
        {
            "trousers": 4,
            "jeans": 3,
            "wide": 1.2 if gender == 0 else 0.6,
            "joggers": 1,
            "shorts": 1.3,
            "leggings": 1.2 if gender == 0 else 0.1,
        },
    )
    waist = rng.uniform(0.05, 0.11)
    if kind == "shorts":
        return Legs(
            _cloth(rng, TROUSER_PATTERNS, 0.7),
            rng.uniform(1.02, 1.5),
            waist,
            rng.uniform(0.008, 0.014),
            rng.uniform(0.8, 1.2),
        )
    if kind == "leggings":
        return Legs(
            _cloth(rng, {"plain": 4, "heather": 1}, 0.8, folds=0.05, shine=0.12),
            rng.uniform(0.02, 0.35),
            waist,
            0.004,
            0.0,
        )
    if kind == "wide":
        return Legs(
            _cloth(rng, TROUSER_PATTERNS, 0.6),
            rng.uniform(-0.12, 0.15),
            waist,
            rng.uniform(0.010, 0.014),
            rng.uniform(1.2, 1.5),
        )
    if kind == "joggers":
        return Legs(
            _cloth(rng, {"plain": 4, "heather": 3, "block": 0.5}, 0.75, folds=0.22),
            rng.uniform(0.0, 0.06),
            waist,
            rng.uniform(0.012, 0.018),
            0.75,
        )
    if kind == "jeans":
        return Legs(
            _cloth(rng, {"denim": 1.0}, folds=0.16),
            rng.uniform(-0.08, 0.12),
            waist,
            rng.uniform(0.007, 0.012),
            rng.uniform(0.45, 1.0),
        )
    return Legs(
        _cloth(rng, TROUSER_PATTERNS, 0.75),
        rng.uniform(-0.10, 0.05),
        waist,
        rng.uniform(0.008, 0.014),
        rng.uniform(0.6, 1.1),
    )


def sample_outfit(rng: np.random.Generator, gender: int) -> Outfit:
    """Draws one outfit for a person of sex `gender` (0 female, 1 male)."""
    top, legs, skirt = _sample_top(rng, gender), None, None
    below = pick(rng, {"legs": 6, "skirt": 2, "dress": 2} if gender == 0 else {"legs": 19, "skirt": 0.5, "dress": 0.5})
    if below == "legs":
        legs = _sample_legs(rng, gender)
    elif below == "skirt":
        length = float(pick_length(rng))
        skirt = Skirt(_cloth(rng, SKIRT_PATTERNS, 0.6), length, rng.uniform(0.09, 0.14), rng.uniform(0.02, 0.14))
        top = dataclasses.replace(top, hem=float(rng.uniform(0.0, 0.07)))
    else:
        cloth = _cloth(rng, SKIRT_PATTERNS, 0.4)
        top = dataclasses.replace(
            top,
            cloth=cloth,
            hem=0.06,
            length=float(pick_length(rng)),
            flare=float(rng.uniform(0.02, 0.16)),
            drape=float(rng.uniform(0.0, 0.5)),
            hood=False,
            offset=min(top.offset, 0.014),
        )
    if below != "legs" and rng.random() < 0.45:  # tights
        legs = Legs(_cloth(rng, {"plain": 1.0}, 0.95, folds=0.0, shine=0.1), -0.1, 0.05, 0.003, 0.0)
    outer = _sample_outer(rng, top)
    if outer is not None and top.length and outer.length == 0:
        outer = dataclasses.replace(outer, hem=max(outer.hem, 0.0))
    boots = rng.random() < 0.25
    upper = (
        np.asarray(LEATHERS[int(rng.integers(len(LEATHERS)))]) if boots or rng.random() < 0.5 else _colour(rng, 0.75)
    )
    sole = np.asarray(
        ((0.85, 0.85, 0.83), (0.10, 0.10, 0.10), (0.35, 0.26, 0.19), (0.55, 0.53, 0.50))[int(rng.integers(4))]
    )
    sock = _colour(rng, 0.85)
    shoes = Shoes(
        Cloth(np.stack([np.clip(upper * np.exp(rng.normal(0, 0.12)), 0.03, 0.92), sole, sock]), shine=0.25, folds=0.0),
        float(rng.uniform(0.06, 0.22)) if boots else float(rng.uniform(-0.015, 0.015)),
        float(rng.choice([0.0, 0.03, 0.09])),
    )
    hat = bag = None
    if rng.random() < 0.16:
        hat = Hat(_cloth(rng, {"plain": 4, "heather": 1}, 0.6), pick(rng, {"cap": 2, "beanie": 2, "brim": 0.7}))
    if rng.random() < 0.34:
        bag = Bag(
            _cloth(rng, {"plain": 5, "block": 1}, 0.65, folds=0.05, shine=0.15),
            pick(rng, {"backpack": 2, "sling": 1.5, "hand": 1.5}),
        )
    return Outfit(top, outer, legs, skirt, shoes, hat, bag)


def pick_length(rng: np.random.Generator) -> float:
    """Length of a skirt or dress as a share of hip to ankle: mini, knee, midi or maxi."""
    return {
        "mini": rng.uniform(0.28, 0.4),
        "knee": rng.uniform(0.42, 0.56),
        "midi": rng.uniform(0.6, 0.78),
        "maxi": rng.uniform(0.85, 0.97),
    }[pick(rng, {"mini": 2, "knee": 4, "midi": 2.5, "maxi": 1})]
