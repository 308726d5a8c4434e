"""Plans what is rendered: people, their outfits and shots, and how a set divides them into splits.

Everything is drawn from streams keyed by seed, population, person, outfit and image number, so any part can be drawn
alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from fastreid_clip3d.body.constants import FRAMINGS, Framing
from fastreid_clip3d.body.files import EMBEDDED
from fastreid_clip3d.body.poses import load_pose_pool, pool_fingerprint
from fastreid_clip3d.body.sampling import BETA_LIMIT
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.synthcc.camera import CAMERAS, Shot, sample_shot
from fastreid_clip3d.synthcc.outfit import Outfit, sample_outfit
from fastreid_clip3d.synthcc.person import VARIANTS, Appearance, Variant, sample_appearance
from fastreid_clip3d.synthcc.seeds import stream

FORMAT: int = 2
"""Raise it whenever the same settings would give other images or labels; tests/synthcc/test_golden.py fails then."""

JPEG_QUALITY: int = 92
NUM_BETAS: int = 10
SPLITS = ("train", "query", "gallery", "val_query", "val_gallery")


@dataclasses.dataclass(frozen=True)
class SetConfig:
    """A set's size and kind. Sizes in pixels; numbers of people by population."""

    name: str
    train_people: int
    test_people: int
    val_people: int
    height: int
    width: int
    outfits: int = 4
    images_per_outfit: int = 4
    variant: Variant = "natural"
    framing: Framing = "fixed"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ClearError(f"variant {self.variant!r} is unknown; known: {', '.join(VARIANTS)}")
        if self.framing not in FRAMINGS:
            raise ClearError(f"framing {self.framing!r} is unknown; known: {', '.join(FRAMINGS)}")
        if self.outfits < 2 or not 2 <= self.images_per_outfit <= len(CAMERAS):
            raise ClearError(
                f"A cloth-changing set needs 2 or more outfits and 2 to {len(CAMERAS)} images of each, one per camera, "
                f"not {self.outfits} and {self.images_per_outfit}."
            )
        if self.height < 32 or self.width < 16 or self.width > self.height:
            raise ClearError(
                "Images must be at least 32 x 16 pixels (height x width) and not wider than high; "
                f"{self.height} x {self.width} is not."
            )
        if self.seed < 0:
            raise ClearError(f"The seed must be at least 0, not {self.seed}.")

    @property
    def folder(self) -> str:
        """Name of the set's folder below the datasets' root."""
        variant = "-shape-only" if self.variant == "shape-only" else ""
        return f"{self.name}{variant}{'-crop' if self.framing == 'crop' else ''}"

    @property
    def populations(self) -> tuple[tuple[str, int, int], ...]:
        """(population, first person number, number of people); numbers are unique within a set."""
        return (
            ("train", 0, self.train_people),
            ("test", self.train_people, self.test_people),
            ("val", self.train_people + self.test_people, self.val_people),
        )


FULL = SetConfig("SynthCC", train_people=1000, test_people=300, val_people=100, height=256, width=128)
TINY = SetConfig("SynthCC-tiny", train_people=400, test_people=300, val_people=100, height=128, width=64)
SETS: dict[str, SetConfig] = {config.name: config for config in (FULL, TINY)}


@dataclasses.dataclass(frozen=True)
class Person:
    """One person."""

    population: str  # train, test, val, or any other word
    number: int
    gender: int  # 0 female, 1 male
    betas: np.ndarray  # [10], shape in standard deviations


def sample_person(seed: int, population: str, number: int) -> Person:
    """Draws person `number` of a population; each number of each population has its own random stream."""
    rng = stream(seed, population, number)
    gender = int(rng.integers(2))
    betas = np.clip(rng.standard_normal(NUM_BETAS), -BETA_LIMIT, BETA_LIMIT).astype(np.float32)
    return Person(population, number, gender, betas)


def sample_clothes(seed: int, person: Person, outfit: int, variant: Variant) -> tuple[Appearance, Outfit]:
    """Skin, hair and clothes of a person in outfit number `outfit`."""
    keys, number = (person.population, person.number), outfit if variant == "shape-only" else 0
    look = sample_appearance(stream(seed, *keys, "appearance", variant, number), person.gender, variant)
    return look, sample_outfit(stream(seed, *keys, "outfit", outfit), person.gender)


@dataclasses.dataclass(frozen=True)
class ImagePlan:
    """One image to be made."""

    file: str  # below the set's folder; "" for an image that is not written
    split: str
    person: Person
    outfit: int
    clothes_id: int
    shot: Shot
    scene_keys: tuple[int | str, ...]


def plan_person(config: SetConfig, population: str, number: int, num_poses: int) -> list[ImagePlan]:
    """All images of one person, outfit by outfit. In test and val the first image of each outfit is the query's."""
    person = sample_person(config.seed, population, number)
    plans = []
    for outfit in range(config.outfits):
        cameras = stream(config.seed, population, number, "cameras", outfit).permutation(len(CAMERAS))
        for image, camera in enumerate(cameras[: config.images_per_outfit]):
            split = "train" if population == "train" else "query" if image == 0 else "gallery"
            split = f"val_{split}" if population == "val" else split
            keys = (population, number, "shot", outfit, image)
            plans.append(
                ImagePlan(
                    file=f"{split}/{number:04d}_o{outfit + 1}_c{int(camera) + 1}_{image:02d}.jpg",
                    split=split,
                    person=person,
                    outfit=outfit,
                    clothes_id=number * config.outfits + outfit,
                    shot=sample_shot(stream(config.seed, *keys), int(camera), num_poses),
                    scene_keys=keys,
                )
            )
    return plans


def settings_of(config: SetConfig) -> dict[str, Any]:
    """Everything that decides a set's images and labels; meta.json holds it."""
    return {
        "format": FORMAT,
        **dataclasses.asdict(config),
        "jpeg_quality": JPEG_QUALITY,
        "body_models": hashlib.sha256(EMBEDDED.read_bytes()).hexdigest()[:16],
        "pose_pool": pool_fingerprint(load_pose_pool()),
    }


def version_of(config: SetConfig) -> str:
    """The set's version: sets of equal versions have equal images."""
    return hashlib.sha256(json.dumps(settings_of(config), sort_keys=True).encode()).hexdigest()[:16]
