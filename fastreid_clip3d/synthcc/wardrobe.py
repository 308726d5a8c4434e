"""What there is to wear, as data: colours, patterns, and the kinds of garments with the limits of their measures.

A measure is a constant, (least, greatest) for a number between two limits, or a list to choose from. Lengths in metres,
colours sRGB in 0..1; chances are relative to each other. What the measures mean stands in
:mod:`~fastreid_clip3d.synthcc.outfit`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

Number = float | tuple[float, float] | list[float]
Colour = tuple[float, float, float]

NEUTRALS: dict[str, Colour] = {
    "black": (0.09, 0.09, 0.10), "charcoal": (0.20, 0.20, 0.22), "grey": (0.45, 0.45, 0.46),
    "light grey": (0.68, 0.68, 0.68), "white": (0.88, 0.88, 0.86), "navy": (0.12, 0.15, 0.27),
    "beige": (0.74, 0.66, 0.53), "brown": (0.34, 0.24, 0.17), "khaki": (0.52, 0.47, 0.34), "cream": (0.87, 0.82, 0.71),
}  # fmt: skip
TONES: dict[str, Colour] = {
    "burgundy": (0.40, 0.12, 0.17), "red": (0.68, 0.16, 0.15), "rust": (0.64, 0.32, 0.18),
    "mustard": (0.76, 0.58, 0.20), "olive": (0.34, 0.35, 0.20), "forest": (0.15, 0.29, 0.20),
    "sage": (0.55, 0.61, 0.50), "teal": (0.14, 0.40, 0.42), "sky": (0.52, 0.67, 0.80), "blue": (0.19, 0.33, 0.62),
    "lilac": (0.62, 0.54, 0.70), "plum": (0.35, 0.19, 0.34), "rose": (0.80, 0.54, 0.56), "coral": (0.85, 0.45, 0.38),
    "yellow": (0.85, 0.76, 0.40), "mint": (0.62, 0.78, 0.68),
}  # fmt: skip
DENIMS: tuple[Colour, ...] = (
    (0.17, 0.23, 0.36), (0.26, 0.35, 0.50), (0.40, 0.50, 0.63), (0.13, 0.14, 0.18), (0.55, 0.62, 0.70),
)  # fmt: skip
LEATHERS: tuple[Colour, ...] = (
    (0.08, 0.075, 0.075), (0.22, 0.14, 0.10), (0.38, 0.25, 0.16), (0.50, 0.38, 0.26), (0.30, 0.30, 0.31),
)  # fmt: skip
PATTERNS: tuple[str, ...] = (
    "plain", "stripes", "pinstripes", "check", "dots", "print", "block", "denim", "flowers", "heather", "camouflage",
)  # fmt: skip
PATTERN_SCALES: dict[str, tuple[float, float]] = {
    "stripes": (0.04, 0.12), "pinstripes": (0.02, 0.035), "check": (0.05, 0.14), "dots": (0.04, 0.07),
    "flowers": (0.05, 0.1), "print": (0.8, 1.3), "block": (0.8, 1.2),
}  # fmt: skip
"""Limits of a pattern's scale; prints and blocks are relative to their usual size, the others metres of one repeat."""
PLAIN_SCALE: float = 0.05
CAMOUFLAGE: tuple[Colour, Colour, Colour] = ((0.32, 0.33, 0.22), (0.20, 0.21, 0.15), (0.46, 0.42, 0.30))
SOLES: tuple[Colour, ...] = ((0.85, 0.85, 0.83), (0.10, 0.10, 0.10), (0.35, 0.26, 0.19), (0.55, 0.53, 0.50))


@dataclasses.dataclass(frozen=True)
class ClothKind:
    """How a cloth is drawn: chances of its patterns, chance of a neutral colour, and fields of ``Cloth``."""

    patterns: Mapping[str, float]
    neutral: float = 0.5
    looks: Mapping[str, Number] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class TopKind:
    """How a top or something worn over it is drawn; fields as in ``Top``.

    `hem` None: :data:`USUAL_HEM`. Where `sleeve` is None, a jacket has long sleeves; a top has long ones with
    probability `long_sleeves`, else short or rolled-up ones. A jacket's `offset` is added to that of the top below it.
    """

    cloth: ClothKind
    neck: str | dict[str, float]
    offset: Number
    drape: Number
    sleeve_drape: Number
    hem: Number | None = None
    sleeve: Number | None = None
    long_sleeves: float = 0.0
    hood: bool = False
    length: Number = 0.0
    flare: Number = 0.0


@dataclasses.dataclass(frozen=True)
class LegsKind:
    """How trousers and the like are drawn; fields as in ``Legs``."""

    cloth: ClothKind
    hem: Number
    offset: Number
    width: Number


_SHIRT_PATTERNS = {
    "plain": 5, "stripes": 2, "check": 1.0, "dots": 0.4, "print": 2, "block": 0.8, "flowers": 0.5, "heather": 1.5,
    "pinstripes": 0.5, "camouflage": 0.15,
}  # fmt: skip
_BUTTON_PATTERNS = {"plain": 4, "pinstripes": 1.2, "check": 2.5, "denim": 0.7, "flowers": 0.4, "stripes": 0.5}
_KNIT_PATTERNS = {"plain": 4, "heather": 2, "stripes": 1.5, "block": 1, "check": 0.3}
_SWEAT_PATTERNS = {"plain": 5, "print": 2, "heather": 2, "block": 1}
_COAT_PATTERNS = {"plain": 7, "heather": 1.5, "check": 0.6, "block": 1.0, "denim": 0.8, "camouflage": 0.2}
_TROUSER_PATTERNS = {"plain": 5, "denim": 5, "heather": 0.8, "pinstripes": 0.4, "check": 0.4, "camouflage": 0.2}
_SKIRT_PATTERNS = {"plain": 4, "denim": 1, "check": 1, "stripes": 0.7, "dots": 0.8, "flowers": 1.5}

USUAL_HEM: tuple[float, float] = (-0.09, 0.06)
TOPS: dict[str, TopKind] = {
    "tee": TopKind(
        cloth=ClothKind(_SHIRT_PATTERNS), neck={"crew": 3, "v": 1, "scoop": 0.8}, sleeve=(0.22, 0.45),
        offset=(0.006, 0.014), drape=(0.1, 0.9), sleeve_drape=(0.3, 1.0),
    ),
    "shirt": TopKind(
        cloth=ClothKind(_BUTTON_PATTERNS, neutral=0.55, looks={"closure": 1.0}), neck="collar", long_sleeves=0.7,
        offset=(0.008, 0.015), drape=(0.3, 0.9), sleeve_drape=(0.4, 0.9),
    ),
    "sweater": TopKind(
        cloth=ClothKind(_KNIT_PATTERNS, looks={"folds": 0.2, "shine": 0.02}),
        neck={"crew": 3, "v": 1, "turtle": 1}, hem=(-0.06, 0.05), sleeve=(0.95, 1.02), offset=(0.012, 0.022),
        drape=(0.3, 1.0), sleeve_drape=(0.5, 1.0),
    ),
    "hoodie": TopKind(
        cloth=ClothKind(_SWEAT_PATTERNS, neutral=0.6, looks={"folds": 0.22, "shine": 0.02}),
        neck="crew", hem=(-0.07, 0.02), sleeve=(0.96, 1.02), offset=(0.016, 0.026), drape=(0.5, 1.0),
        sleeve_drape=(0.7, 1.1), hood=True,
    ),
    "tank": TopKind(
        cloth=ClothKind(_SHIRT_PATTERNS), neck={"scoop": 2, "v": 1, "crew": 0.5}, sleeve=-0.08, offset=(0.004, 0.008),
        drape=(0.0, 0.6), sleeve_drape=0.0,
    ),
    "polo": TopKind(
        cloth=ClothKind({"plain": 4, "stripes": 2, "heather": 1}, neutral=0.45), neck="collar", sleeve=(0.28, 0.42),
        offset=(0.007, 0.012), drape=(0.2, 0.8), sleeve_drape=(0.4, 0.8),
    ),
    "blouse": TopKind(
        cloth=ClothKind(_SKIRT_PATTERNS, neutral=0.4), neck={"v": 2, "scoop": 1.5, "crew": 1}, hem=(-0.06, 0.05),
        long_sleeves=0.5, offset=(0.008, 0.016), drape=(0.3, 1.0), sleeve_drape=(0.6, 1.2),
    ),
}  # fmt: skip
OUTERS: dict[str, TopKind] = {
    "jacket": TopKind(
        cloth=ClothKind(_COAT_PATTERNS, neutral=0.65, looks={"shine": [0.03, 0.2]}), neck="collar", hem=(-0.10, 0.02),
        offset=(0.010, 0.018), drape=(0.4, 0.9), sleeve_drape=(0.8, 1.1),
    ),
    "coat": TopKind(
        cloth=ClothKind(_COAT_PATTERNS, neutral=0.7, looks={"folds": 0.15}), neck="collar", hem=-0.06,
        offset=(0.012, 0.020), drape=(0.5, 0.9), sleeve_drape=(0.8, 1.1), length=(0.22, 0.62), flare=(0.0, 0.06),
    ),
    "cardigan": TopKind(
        cloth=ClothKind({"plain": 4, "heather": 3, "stripes": 0.6}, looks={"shine": 0.02}), neck="v", hem=(-0.16, 0.0),
        offset=(0.008, 0.013), drape=(0.4, 0.9), sleeve_drape=(0.6, 1.0),
    ),
    "parka": TopKind(
        cloth=ClothKind(_COAT_PATTERNS, neutral=0.6, looks={"folds": 0.25, "shine": 0.1}), neck="collar", hem=-0.06,
        offset=(0.018, 0.026), drape=(0.7, 1.0), sleeve_drape=(1.0, 1.3), hood=True, length=(0.10, 0.25), flare=0.02,
    ),
    "vest": TopKind(
        cloth=ClothKind(_COAT_PATTERNS, neutral=0.6, looks={"shine": 0.15}), neck="collar", hem=(-0.06, 0.04),
        sleeve=-0.03, offset=(0.014, 0.022), drape=0.6, sleeve_drape=0.0,
    ),
}  # fmt: skip
LEGWEAR: dict[str, LegsKind] = {
    "trousers": LegsKind(
        cloth=ClothKind(_TROUSER_PATTERNS, neutral=0.75), hem=(-0.10, 0.05), offset=(0.008, 0.014), width=(0.6, 1.1),
    ),
    "jeans": LegsKind(
        cloth=ClothKind({"denim": 1.0}, looks={"folds": 0.16}), hem=(-0.08, 0.12), offset=(0.007, 0.012),
        width=(0.45, 1.0),
    ),
    "wide": LegsKind(
        cloth=ClothKind(_TROUSER_PATTERNS, neutral=0.6), hem=(-0.12, 0.15), offset=(0.010, 0.014), width=(1.2, 1.5),
    ),
    "joggers": LegsKind(
        cloth=ClothKind({"plain": 4, "heather": 3, "block": 0.5}, neutral=0.75, looks={"folds": 0.22}), hem=(0.0, 0.06),
        offset=(0.012, 0.018), width=0.75,
    ),
    "shorts": LegsKind(
        cloth=ClothKind(_TROUSER_PATTERNS, neutral=0.7), hem=(1.02, 1.5), offset=(0.008, 0.014), width=(0.8, 1.2),
    ),
    "leggings": LegsKind(
        cloth=ClothKind({"plain": 4, "heather": 1}, neutral=0.8, looks={"folds": 0.05, "shine": 0.12}),
        hem=(0.02, 0.35), offset=0.004, width=0.0,
    ),
}  # fmt: skip
LENGTHS: dict[str, tuple[float, float]] = {
    "mini": (0.28, 0.4), "knee": (0.42, 0.56), "midi": (0.6, 0.78), "maxi": (0.85, 0.97),
}  # fmt: skip
"""Of skirts and dresses: share of the way from the hips to the ankles."""

SKIRT_CLOTH = ClothKind(_SKIRT_PATTERNS, neutral=0.6)
DRESS_CLOTH = ClothKind(_SKIRT_PATTERNS, neutral=0.4)
TIGHTS_CLOTH = ClothKind({"plain": 1.0}, neutral=0.95, looks={"folds": 0.0, "shine": 0.1})
HAT_CLOTH = ClothKind({"plain": 4, "heather": 1}, neutral=0.6)
BAG_CLOTH = ClothKind({"plain": 5, "block": 1}, neutral=0.65, looks={"folds": 0.05, "shine": 0.15})

# Chances; where there are two tables, the first is women's and the second men's.
TOP_CHANCES = (
    {"tee": 4, "shirt": 1.5, "sweater": 3, "hoodie": 1.6, "tank": 1.6, "polo": 1, "blouse": 2},
    {"tee": 4, "shirt": 3, "sweater": 3, "hoodie": 1.6, "tank": 0.5, "polo": 1},
)
BELOW_CHANCES = ({"legs": 6, "skirt": 2, "dress": 2}, {"legs": 19, "skirt": 0.5, "dress": 0.5})
LEGWEAR_CHANCES = (
    {"trousers": 4, "jeans": 3, "wide": 1.2, "joggers": 1, "shorts": 1.3, "leggings": 1.2},
    {"trousers": 4, "jeans": 3, "wide": 0.6, "joggers": 1, "shorts": 1.3, "leggings": 0.1},
)
OUTER_CHANCES = {"jacket": 4, "coat": 2, "cardigan": 1.5, "parka": 1.5, "vest": 0.7}
LENGTH_CHANCES = {"mini": 2, "knee": 4, "midi": 2.5, "maxi": 1}
HAT_CHANCES = {"cap": 2, "beanie": 2, "brim": 0.7}
BAG_CHANCES = {"backpack": 2, "sling": 1.5, "hand": 1.5}
