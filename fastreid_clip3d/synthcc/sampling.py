"""Renders clothed people into memory, and gives the true descriptors of their bodies.

Legend: B images of a batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from fastreid_clip3d.body.constants import GENDERS, Framing
from fastreid_clip3d.body.descriptors import describe, label, population_thresholds
from fastreid_clip3d.body.poses import load_pose_pool
from fastreid_clip3d.synthcc.camera import CAMERAS, sample_shot
from fastreid_clip3d.synthcc.dressing import Dressed, dress
from fastreid_clip3d.synthcc.figure import load_figure
from fastreid_clip3d.synthcc.person import Variant
from fastreid_clip3d.synthcc.plan import ImagePlan, sample_clothes, sample_person
from fastreid_clip3d.synthcc.render import IMAGES_AT_ONCE, Pictures, render
from fastreid_clip3d.synthcc.seeds import stream
from fastreid_clip3d.vocabulary import NUM_PAIRS

LABELLED_AT_ONCE = 64
"""Bodies of one sex whose descriptors are computed together: bounds memory."""


def sample_people(
    num_people: int,
    images_per_person: int,
    seed: int,
    size: tuple[int, int] = (128, 64),
    variant: Variant = "natural",
    framing: Framing = "fixed",
    population: str = "teacher",
    outfits_per_person: int | None = None,
    first: int = 0,
    batch_size: int = IMAGES_AT_ONCE,
) -> Iterator[dict[str, torch.Tensor]]:
    """Renders clothed people into memory, for example to train a teacher.

    Args:
        num_people: how many.
        images_per_person: images per person; they come one after the other.
        seed: the same seed, sizes and arguments give the same people.
        size: height and width in pixels.
        variant: ``natural`` keeps a person's skin and hair, ``shape-only`` redraws them with every outfit.
        framing: ``fixed`` or ``crop``.
        population: names the people. Those of populations other than "train", "test" and "val" are in no set on disk,
            whatever the seed.
        outfits_per_person: None for a new outfit in every image. Dressing takes a large part of the time, so
            few outfits in many images render faster.
        first: number of the first person, to split the work.
        batch_size: most images of a batch.

    Yields:
        Batches of B images: images uint8 [B, 3, H, W] RGB, mask bool [B, H, W] and parts uint8 [B, H, W] (see
        :class:`~fastreid_clip3d.synthcc.render.Pictures`), betas float32 [B, 10], gender int64 [B] (0 female, 1 male),
        scores float32 [B, 16], phrase_choices int64 [B, 16], pid, clothes_id and camid int64 [B].
    """
    outfits = outfits_per_person or images_per_person
    poses = load_pose_pool().numpy()

    def plans() -> Iterator[ImagePlan]:
        for number in range(first, first + num_people):
            person = sample_person(seed, population, number)
            order = stream(seed, population, number, "camera order").permutation(len(CAMERAS))
            for image in range(images_per_person):
                keys, outfit = (population, number, "shot", image), image % outfits
                shot = sample_shot(stream(seed, *keys), int(order[image % len(CAMERAS)]), len(poses))
                yield ImagePlan("", population, person, outfit, number * outfits + outfit, shot, keys)

    for group, pictures in render_plans(plans(), seed, variant, size, framing, poses, batch_size):
        people = list({plan.person.number: plan.person for plan in group}.values())
        row = {person.number: place for place, person in enumerate(people)}
        place = torch.tensor([row[plan.person.number] for plan in group])
        betas = np.stack([person.betas for person in people])
        gender = np.array([person.gender for person in people])
        scores, choices = label_people(betas, gender)
        yield {
            "images": pictures.images,
            "mask": pictures.mask,
            "parts": pictures.parts,
            "betas": torch.from_numpy(betas)[place],
            "gender": torch.from_numpy(gender).long()[place],
            "scores": torch.from_numpy(scores)[place],
            "phrase_choices": torch.from_numpy(choices)[place],
            "pid": torch.tensor([plan.person.number for plan in group]),
            "clothes_id": torch.tensor([plan.clothes_id for plan in group]),
            "camid": torch.tensor([plan.shot.camera for plan in group]),
        }


def render_plans(
    plans: Iterable[ImagePlan],
    seed: int,
    variant: Variant,
    size: tuple[int, int],
    framing: Framing,
    poses: np.ndarray,
    batch_size: int = IMAGES_AT_ONCE,
) -> Iterator[tuple[list[ImagePlan], Pictures]]:
    """Renders planned images, `batch_size` at a time; images of one outfit share its dressed body.

    `size` is height and width in pixels, `poses` the pose pool, float [K, 72].
    """
    plans = iter(plans)
    dressed: dict[int, Dressed] = {}
    while group := list(itertools.islice(plans, batch_size)):
        before, dressed = dressed, {}
        for plan in group:
            clothes, person = plan.clothes_id, plan.person
            if clothes in before:
                dressed[clothes] = before[clothes]
            elif clothes not in dressed:
                look, outfit = sample_clothes(seed, person, plan.outfit, variant)
                dressed[clothes] = dress(load_figure(person.gender), person.betas, look, outfit)
        people = [dressed[plan.clothes_id] for plan in group]
        streams = [stream(seed, *plan.scene_keys, "scene") for plan in group]
        yield group, render(people, [plan.shot for plan in group], poses, streams, *size, framing)


def label_people(betas: np.ndarray, gender: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Descriptor scores float32 [n, 16] and phrase choices int64 [n, 16] of bodies [n, 10]."""
    scores = np.zeros((len(betas), NUM_PAIRS), dtype=np.float32)
    choices = np.zeros((len(betas), NUM_PAIRS), dtype=np.int64)
    for sex in range(len(GENDERS)):
        model = load_figure(sex).model
        rows = np.flatnonzero(gender == sex)
        for start in range(0, len(rows), LABELLED_AT_ONCE):
            some = rows[start : start + LABELLED_AT_ONCE]
            found = describe(model.shape(torch.from_numpy(betas[some])), model)
            scores[some] = found.numpy()
            choices[some] = label(found, population_thresholds(model)).numpy()
    return scores, choices
