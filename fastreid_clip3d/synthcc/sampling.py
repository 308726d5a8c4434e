"""Clothed people in memory, and what is true of their bodies.

Legend: B images of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fastreid_clip3d.body.constants import GENDERS, Framing
from fastreid_clip3d.body.descriptors import describe, label, population_thresholds
from fastreid_clip3d.body.poses import load_pose_pool
from fastreid_clip3d.synthcc.camera import CAMERAS, sample_shot
from fastreid_clip3d.synthcc.dressing import Dressed, dress
from fastreid_clip3d.synthcc.figure import load_figure
from fastreid_clip3d.synthcc.person import Variant
from fastreid_clip3d.synthcc.plan import sample_clothes, sample_person
from fastreid_clip3d.synthcc.render import IMAGES_AT_ONCE, render
from fastreid_clip3d.synthcc.seeds import stream
from fastreid_clip3d.vocabulary import NUM_PAIRS


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
    """Makes clothed people in memory: to train a teacher, to look for leaks, for pictures in a talk.

    Args:
        num_people: how many.
        images_per_person: images per person; they come one after the other.
        seed: the same seed, sizes and arguments give the same people.
        size: height and width in pixels.
        variant: ``natural`` keeps a person's skin and hair, ``shape-only`` redraws them with every outfit.
        framing: ``fixed`` or ``crop``.
        population: names the people. Those of populations other than "train", "test" and "val" are in no set on disk,
            whatever the seed.
        outfits_per_person: None for a new outfit in every image.
        first: number of the first person, to split the work.
        batch_size: most images of a batch.

    Yields:
        Batches of B images: images uint8 [B, 3, H, W] RGB, mask bool [B, H, W] and parts uint8 [B, H, W] (see
        :class:`~fastreid_clip3d.synthcc.render.Pictures`), betas float32 [B, 10], gender int64 [B] (0 female, 1 male),
        scores float32 [B, 16], phrase_choices int64 [B, 16], pid, clothes_id and camid int64 [B].
    """
    outfits = outfits_per_person or images_per_person
    poses = load_pose_pool().numpy()
    jobs = [(number, image) for number in range(first, first + num_people) for image in range(images_per_person)]
    dressed: dict[tuple[int, int], Dressed] = {}
    for start in range(0, len(jobs), batch_size):
        group = jobs[start : start + batch_size]
        numbers = sorted({number for number, _ in group})
        people = {number: sample_person(seed, population, number) for number in numbers}
        dressed = {key: value for key, value in dressed.items() if key[0] in people}
        bodies, shots, streams = [], [], []
        for number, image in group:
            person, outfit = people[number], image % outfits
            if (number, outfit) not in dressed:
                look, clothes = sample_clothes(seed, person, outfit, variant)
                dressed[number, outfit] = dress(load_figure(person.gender), person.betas, look, clothes)
            order = stream(seed, population, number, "camera order").permutation(len(CAMERAS))
            camera = int(order[image % len(CAMERAS)])
            bodies.append(dressed[number, outfit])
            shots.append(sample_shot(stream(seed, population, number, "shot", image), camera, len(poses)))
            streams.append(stream(seed, population, number, "shot", image, "scene"))
        pictures = render(bodies, shots, poses, streams, size[0], size[1], framing)
        place = torch.tensor([numbers.index(number) for number, _ in group])
        betas = np.stack([people[number].betas for number in numbers])
        gender = np.array([people[number].gender for number in numbers])
        scores, choices = label_people(betas, gender)
        yield {
            "images": pictures.images,
            "mask": pictures.mask,
            "parts": pictures.parts,
            "betas": torch.from_numpy(betas)[place],
            "gender": torch.from_numpy(gender).long()[place],
            "scores": torch.from_numpy(scores)[place],
            "phrase_choices": torch.from_numpy(choices)[place],
            "pid": torch.tensor([number for number, _ in group]),
            "clothes_id": torch.tensor([number * outfits + image % outfits for number, image in group]),
            "camid": torch.tensor([shot.camera for shot in shots]),
        }


def label_people(betas: np.ndarray, gender: np.ndarray, at_once: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Descriptor scores float32 [n, 16] and phrase choices int64 [n, 16] of bodies [n, 10]."""
    scores = np.zeros((len(betas), NUM_PAIRS), dtype=np.float32)
    choices = np.zeros((len(betas), NUM_PAIRS), dtype=np.int64)
    for sex in range(len(GENDERS)):
        model = load_figure(sex).model
        rows = np.flatnonzero(gender == sex)
        for start in range(0, len(rows), at_once):
            some = rows[start : start + at_once]
            found = describe(model.shape(torch.from_numpy(betas[some])), model)
            scores[some] = found.numpy()
            choices[some] = label(found, population_thresholds(model)).numpy()
    return scores, choices
