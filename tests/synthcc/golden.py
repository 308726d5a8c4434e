"""What SynthCC drew and rendered when its FORMAT was last raised; `test_golden.py` compares it with today's.

`python -m tests.synthcc.golden` writes the two files beside this module anew. Do that only together with a raised
`FORMAT` in `fastreid_clip3d/synthcc/plan.py`: rendered sets of the old number are then another version.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastreid_clip3d.body.poses import load_pose_pool
from fastreid_clip3d.common.threads import one_thread
from fastreid_clip3d.synthcc.background import paint_background
from fastreid_clip3d.synthcc.camera import CAMERAS, aim, key_light_direction, sample_shot
from fastreid_clip3d.synthcc.dressing import dress
from fastreid_clip3d.synthcc.figure import load_figure
from fastreid_clip3d.synthcc.occluders import paint_occluder
from fastreid_clip3d.synthcc.patterns import paint
from fastreid_clip3d.synthcc.plan import TINY, plan_person, sample_clothes, sample_person
from fastreid_clip3d.synthcc.render import render
from fastreid_clip3d.synthcc.sampling import sample_people
from fastreid_clip3d.synthcc.seeds import stream
from fastreid_clip3d.synthcc.wardrobe import PATTERNS

PICTURES = Path(__file__).with_name("golden_pictures.npz")
PARAMETERS = Path(__file__).with_name("golden_parameters.json")
SEED = 7
PEOPLE = 12
"""Rendered people of each variant and framing."""
SCENES = 96
BLOCK = 8
"""Pixels per side of the squares whose mean colour is kept."""


def parameters() -> dict[str, Any]:
    """Every drawn number of a few people, and counts and means over many people, which see every table."""
    few = [_flat(person, variant) for variant in ("natural", "shape-only") for person in range(4)]
    many = [_flat(person, variant) for variant in ("natural", "shape-only") for person in range(600)]
    config = dataclasses.replace(TINY, test_people=150)  # validation people are numbered after the test people
    images = [
        dataclasses.asdict(plan.shot) | {"file": plan.file, "clothes_id": plan.clothes_id}
        for population, first, _ in config.populations
        for plan in plan_person(config, population, first, 100)
    ]
    counts: dict[str, int] = {}
    sums: dict[str, list[float]] = {}
    for row in many:
        for name, value in row.items():
            if isinstance(value, str | bool | None):
                counts[f"{name} = {value}"] = counts.get(f"{name} = {value}", 0) + 1
            else:
                sums.setdefault(name, []).append(float(value))
    means = {name: [len(values), float(np.sum(values))] for name, values in sums.items()}
    return {"few": few, "images": images, "counts": counts, "sums": means, "cameras": [vars(one) for one in CAMERAS]}


def pictures() -> dict[str, np.ndarray]:
    """Mean colours of squares of small pictures, uint8, and how many of their pixels show each part."""
    found: dict[str, np.ndarray] = {}
    with one_thread():
        for variant in ("natural", "shape-only"):
            for framing in ("fixed", "crop"):
                people = {"variant": variant, "framing": framing, "population": "golden", "size": (96, 48)}
                batches = list(sample_people(PEOPLE, 1, SEED, **people))
                images = np.concatenate([batch["images"].numpy() for batch in batches])
                parts = np.concatenate([batch["parts"].numpy() for batch in batches])
                found[f"people {variant} {framing}"] = block_means(images.transpose(0, 2, 3, 1))
                found[f"parts {variant} {framing}"] = np.stack(
                    [np.bincount(p.ravel(), minlength=256)[:10] for p in parts]
                )
        found["faces"] = _faces()
        found["scenes"] = block_means(np.stack([_scene(number) for number in range(SCENES)]))
        found["occluders"] = block_means(np.stack([_occluder(number) for number in range(24)]))
        found["patterns"] = np.stack([_pattern(number) for number in range(len(PATTERNS))])
    return found


def _faces() -> np.ndarray:
    """Heads and shoulders of people who look into the camera, as :func:`block_means`."""
    people, shots, streams = [], [], []
    for number in range(6):
        person = sample_person(SEED, "golden", number)
        people.append(dress(load_figure(person.gender), person.betas, *sample_clothes(SEED, person, 0, "natural")))
        shot = sample_shot(stream(SEED, "face", number), 0, 100)
        shots.append(dataclasses.replace(shot, heading=0.0, partial=None, occluded=False))
        streams.append(stream(SEED, "face", number, "scene"))
    found = render(people, shots, load_pose_pool().numpy(), streams, 384, 192, "crop")
    return block_means(found.images[:, :, :112].permute(0, 2, 3, 1).numpy())


def block_means(images: np.ndarray) -> np.ndarray:
    """Mean values [N, H / 8, W / 8, C] of uint8 images [N, H, W, C], in sixteenths of a level as uint16."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK, channels).astype(np.float64)
    return np.rint(blocks.mean((2, 4)) * 16).astype(np.uint16)


def _flat(number: int, variant: str) -> dict[str, Any]:
    person = sample_person(SEED, "golden", number)
    look, outfit = sample_clothes(SEED, person, number % 3, variant)
    return dict(_leaves("", {"person": person, "look": look, "outfit": outfit}))


def _leaves(name: str, value: Any):
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}".lstrip("."), inner)
    elif isinstance(value, np.ndarray | tuple | list):
        for place, inner in enumerate(np.asarray(value).ravel().tolist()):
            yield f"{name}.{place}", inner
    else:
        yield name, value.item() if isinstance(value, np.generic) else value


def _scene(number: int) -> np.ndarray:
    """An empty scene, uint8 [32, 16, 3]."""
    rng = stream(SEED, "scene", number)
    shot = sample_shot(rng, number % len(CAMERAS), 10)
    feet = np.array([[0.1, 0.0], [-0.1, 0.1]])
    view = aim(shot, None, "fixed")
    return _bytes(paint_background(rng, view, 32, 16, number % 2 == 0, feet, key_light_direction(shot)))


def _occluder(number: int) -> np.ndarray:
    """Something that stands before a grey wall, uint8 [32, 16, 3]."""
    colour, cover = paint_occluder(stream(SEED, "occluder", number), 32, 16)
    return _bytes(0.5 + (colour - 0.5) * cover[..., None])


def _pattern(number: int) -> np.ndarray:
    """Mean and standard deviation of a pattern's colours on a torso's worth of points, in levels, float32 [2, 3]."""
    y, x, z = np.meshgrid(np.linspace(-0.8, 0.5, 60), np.linspace(-0.4, 0.4, 60), [-0.08, 0.1], indexing="ij")
    points = torch.from_numpy(np.stack([x, y, z], -1).reshape(-1, 3)).float()
    count = len(points)
    colours = torch.tensor([[0.2, 0.3, 0.5], [0.8, 0.8, 0.1], [0.5, 0.1, 0.1]]).expand(count, 3, 3)
    scale = 1.0 if PATTERNS[number] in ("print", "block") else 0.07
    painted = paint(
        points, torch.full((count,), number), colours, torch.full((count,), scale), torch.full((count,), 0.45)
    ).numpy()
    return 255 * np.stack([painted.mean(0), painted.std(0)])


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def write() -> None:
    """Writes both files anew."""
    np.savez_compressed(PICTURES, **pictures())
    PARAMETERS.write_text(json.dumps(parameters(), sort_keys=True) + "\n")


if __name__ == "__main__":
    write()
    print(f"{PICTURES}\n{PARAMETERS}")
