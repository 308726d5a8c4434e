"""Who a person is: body shape, sex, and the skin and hair that may or may not stay the same.

Variants: ``natural`` keeps skin tone, hair and beard for life; ``shape-only`` draws them anew with every outfit, from
distributions that do not depend on the sex, so that nothing but the body gives away who it is.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from fastreid_clip3d.synthcc.seeds import pick
from fastreid_clip3d.synthcc.wardrobe import Colour

Variant = Literal["natural", "shape-only"]
VARIANTS: tuple[Variant, ...] = ("natural", "shape-only")

# From light to dark; sRGB.
SKIN_TONES: tuple[Colour, ...] = (
    (0.93, 0.78, 0.69), (0.90, 0.73, 0.62), (0.86, 0.68, 0.55), (0.79, 0.60, 0.46), (0.70, 0.51, 0.37),
    (0.60, 0.42, 0.30), (0.48, 0.33, 0.24), (0.38, 0.26, 0.19), (0.29, 0.20, 0.15),
)  # fmt: skip
HAIR_COLOURS: dict[str, Colour] = {
    "black": (0.07, 0.065, 0.065), "dark brown": (0.15, 0.10, 0.075), "brown": (0.27, 0.18, 0.12),
    "light brown": (0.42, 0.30, 0.19), "blond": (0.72, 0.57, 0.36), "ginger": (0.50, 0.24, 0.12),
    "grey": (0.52, 0.51, 0.50), "white": (0.82, 0.81, 0.79),
}  # fmt: skip
EYE_COLOURS: tuple[Colour, ...] = ((0.10, 0.07, 0.05), (0.18, 0.13, 0.09), (0.22, 0.28, 0.34), (0.20, 0.24, 0.17))
HAIR_SHARES: dict[str, float] = {
    "black": 5, "dark brown": 4, "brown": 3, "light brown": 2, "blond": 2, "ginger": 0.7, "grey": 1.3, "white": 0.5,
}  # fmt: skip
FEMALE_STYLES: dict[str, float] = {"long": 4, "bob": 3, "ponytail": 2.5, "bun": 2, "short": 1.2, "afro": 0.6}
MALE_STYLES: dict[str, float] = {"short": 4, "buzz": 2.5, "fringe": 2, "bald": 0.9, "bob": 0.5, "afro": 0.6, "bun": 0.2}
ALL_STYLES: dict[str, float] = {
    style: FEMALE_STYLES.get(style, 0) + MALE_STYLES.get(style, 0)
    for style in dict.fromkeys((*FEMALE_STYLES, *MALE_STYLES))
}


@dataclasses.dataclass(frozen=True)
class Appearance:
    """Skin and hair; colours are sRGB [3] in 0..1."""

    skin: np.ndarray
    hair: np.ndarray
    style: str
    beard: float  # 0 none, 1 full
    lips: np.ndarray
    eyes: np.ndarray
    hairline: float  # metres, higher or lower


def sample_appearance(rng: np.random.Generator, gender: int, variant: Variant) -> Appearance:
    """Draws skin and hair; ``gender`` (0 female, 1 male) is looked at in the ``natural`` variant only."""
    if variant not in VARIANTS:
        raise ValueError(f"variant is one of {VARIANTS}, not {variant!r}")
    place = rng.random() * (len(SKIN_TONES) - 1)
    low = int(place)
    tones = np.asarray(SKIN_TONES)
    skin = tones[low] + (tones[low + 1] - tones[low]) * (place - low)
    skin = np.clip(skin * np.exp(rng.normal(0, 0.03)) + rng.normal(0, 0.008, 3), 0.08, 0.97)
    dark = place / (len(SKIN_TONES) - 1)
    shares = {
        name: share * (1 if name in ("black", "dark brown", "grey", "white") or dark < 0.5 else 0.15)
        for name, share in HAIR_SHARES.items()
    }
    hair = np.asarray(HAIR_COLOURS[pick(rng, shares)])
    hair = np.clip(hair * np.exp(rng.normal(0, 0.12)) + rng.normal(0, 0.006, 3), 0.03, 0.9)
    styles = ALL_STYLES if variant == "shape-only" else (FEMALE_STYLES, MALE_STYLES)[gender]
    style = pick(rng, styles)
    beard = float(rng.choice([0.0, 0.45, 1.0], p=[0.55, 0.25, 0.2]))
    if variant == "shape-only" or gender == 0:
        beard = 0.0
    lips = np.clip(skin * np.array([0.92, 0.66, 0.66]), 0, 1)
    eyes = np.asarray(EYE_COLOURS[int(rng.integers(len(EYE_COLOURS)))])
    hairline = float(rng.normal(0, 0.006))
    return Appearance(skin=skin, hair=hair, style=style, beard=beard, lips=lips, eyes=eyes, hairline=hairline)
