"""Renders the people from whom a small teacher learns, clothed or grey, with the true descriptors of their bodies.

They have their own stream of random numbers ("teacher"): no training or test set of a student has one of them.

Shape letters: N pictures, H x W size, 16 pairs.
"""

from __future__ import annotations

import functools
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fastreid_clip3d.body.archives import DAMAGES
from fastreid_clip3d.body.constants import GENDERS
from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import NUM_PAIRS
from tools.assets.teacher.pictures import NUM_SHAPES, LabelledPictures

KINDS = ("clothed, fixed", "clothed, crop", "grey, fixed", "grey, crop")
"""Kinds of pictures; `LabelledPictures.kinds` holds indices into it."""
GREY_PIDS = 1_000_000  # the first person id of grey bodies
CLOTHED_BLOCK = 16  # clothed people in a row with the same framing and variant
CHUNK = 64  # people per file: an interruption loses at most one file
_SHARPNESS = 3.0  # slope of the sigmoid from score to target, per standard deviation


@dataclass(frozen=True)
class PeopleSettings:
    """Numbers of clothed and grey people, pictures per clothed person, size in pixels, seed."""

    clothed: int = 4000
    clothed_images: int = 2
    grey: int = 3000
    height: int = 128
    width: int = 64
    seed: int = 0


def make_pictures(
    settings: PeopleSettings, folder: str | Path, workers: int = 1, progress: bool = True
) -> LabelledPictures:
    """Renders what is missing in `folder` and returns all pictures; their order does not depend on `workers`.

    Raises:
        ClearError: the folder cannot be written.
    """
    folder = Path(folder) / _folder_name(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClearError(f"{folder} cannot be written ({error.strerror}). Give another --output.") from error
    jobs = [
        (kind, chunk)
        for kind, total in (("clothed", settings.clothed), ("grey", settings.grey))
        for chunk in range(-(-total // CHUNK))
    ]
    paths = [folder / f"{kind}-{chunk:04d}.npz" for kind, chunk in jobs]
    todo = [(settings, kind, chunk, str(path)) for (kind, chunk), path in zip(jobs, paths) if not path.is_file()]
    with tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc="people", unit="chunk", disable=not progress) as bar:
        if workers > 1:
            import multiprocessing

            with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread) as pool:
                for _ in pool.map(_make_chunk, todo):
                    bar.update()
        else:
            for job in todo:
                _make_chunk(job)
                bar.update()
    parts = [_read_chunk(path, settings, kind) for (kind, _), path in zip(jobs, paths)]
    return LabelledPictures(*(np.concatenate(column) for column in zip(*parts)))


def soft_targets(scores: np.ndarray, median: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Probability of phrase 1, float32 [N, 16]: 0.5 at the threshold, where millimetres decide the label.

    Args:
        scores: [N, 16]; median, deviation: [16] or [N, 16], of the body's own sex.
    """
    return (1 / (1 + np.exp(-_SHARPNESS * (scores - median) / deviation))).astype(np.float32)


def shape_numbers(scores: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """What describes a body without words, float32 [N, 26]: scores [N, 16] and betas [N, 10], both in deviations."""
    return np.concatenate((scores, betas), axis=1).clip(-3.0, 3.0).astype(np.float32)


def _folder_name(settings: PeopleSettings) -> str:
    """It does not depend on the number of people, since more people only add chunks."""
    return f"people-2-{settings.height}x{settings.width}x{settings.clothed_images}-seed{settings.seed}"


def _read_chunk(path: Path, settings: PeopleSettings, kind: str) -> LabelledPictures:
    try:
        with np.load(path, allow_pickle=False) as part:
            pictures = LabelledPictures(**{name: part[name] for name in LabelledPictures._fields})
    except DAMAGES as error:
        raise ClearError(
            f"{path} is damaged ({error}). Delete this file and run again; only this file is rendered again."
        ) from error
    wanted = pictures.pids < (settings.clothed if kind == "clothed" else settings.grey + GREY_PIDS)
    return LabelledPictures(*(column[wanted] for column in pictures))


def _one_thread() -> None:
    torch.set_num_threads(1)


def _make_chunk(job: tuple[PeopleSettings, str, int, str]) -> None:
    settings, kind, chunk, path = job
    people = range(chunk * CHUNK, (chunk + 1) * CHUNK)
    part = (clothed_pictures if kind == "clothed" else grey_pictures)(settings, people)
    write_atomically(path, lambda stream: np.savez(stream, **part._asdict()))


@torch.no_grad()
def clothed_pictures(settings: PeopleSettings, people: range) -> LabelledPictures:
    """Pictures of each person, each with another outfit and camera; both framings and both variants."""
    from fastreid_clip3d.synthcc.sampling import sample_people

    parts = []
    for start in range(people.start, people.stop, CLOTHED_BLOCK):
        block = start // CLOTHED_BLOCK
        framing, variant = ("fixed", "crop")[block % 2], ("natural", "shape-only")[block // 2 % 2]
        for found in sample_people(
            min(CLOTHED_BLOCK, people.stop - start),
            settings.clothed_images,
            settings.seed,
            size=(settings.height, settings.width),
            variant=variant,
            framing=framing,
            population="teacher",
            first=start,
            batch_size=32,
        ):
            of_sex = [_population(_body_model(gender)) for gender in GENDERS]
            median, deviation = (np.stack(values)[found["gender"].numpy()] for values in zip(*of_sex))
            parts.append(
                LabelledPictures(
                    found["images"].permute(0, 2, 3, 1).contiguous().numpy(),
                    soft_targets(found["scores"].numpy(), median, deviation),
                    found["pid"].numpy(),
                    np.full(len(found["pid"]), KINDS.index(f"clothed, {framing}")),
                    shape_numbers((found["scores"].numpy() - median) / deviation, found["betas"].numpy()),
                    np.full(len(found["pid"]), variant == "shape-only"),
                )
            )
    return LabelledPictures(*(np.concatenate(column) for column in zip(*parts)))


@torch.no_grad()
def grey_pictures(settings: PeopleSettings, people: range) -> LabelledPictures:
    """One grey picture of each person: bodies as in SyntheticBodies, half of them in other shades of grey."""
    from fastreid_clip3d.body.descriptors import describe
    from fastreid_clip3d.body.poses import load_pose_pool
    from fastreid_clip3d.body.rendering import GreyRenderer, draw, lights_of, stand_on_ground, to_bytes, views_of
    from fastreid_clip3d.body.sampling import sample_betas

    pool, size = load_pose_pool(), (settings.height, settings.width)
    images = np.zeros((len(people), *size), np.uint8)
    targets, kinds = np.zeros((len(people), NUM_PAIRS), np.float32), np.zeros(len(people), np.int64)
    shapes = np.zeros((len(people), NUM_SHAPES), np.float32)
    shades = np.random.default_rng([*_stream(settings, "shades"), people.start])
    for group in range(8):  # people of one sex, framing and background are rendered together
        gender, framing, plain = GENDERS[group % 2], ("fixed", "crop")[group // 2 % 2], group < 4
        rows = [row for row, person in enumerate(people) if person % 8 == group]
        grey, background = (0.75, 1.0) if plain else (shades.uniform(0.3, 0.9), shades.uniform(0.0, 1.0))
        if not rows:
            continue
        streams = [np.random.SeedSequence([*_stream(settings, "grey"), people[row]]) for row in rows]
        rngs = [np.random.default_rng(stream) for stream in streams]
        model = _body_model(gender)
        betas = torch.from_numpy(np.concatenate([sample_betas(1, stream.spawn(1)[0]) for stream in streams]))
        poses = pool[[int(rng.integers(len(pool))) for rng in rngs]]
        shots = [draw(rng, framing) for rng in rngs]
        vertices = stand_on_ground(model.pose(betas, poses)[0])
        renderer = GreyRenderer(model.faces, size, grey, background)
        images[rows] = to_bytes(renderer.render(vertices, views_of(vertices, shots, size, framing), lights_of(shots)))
        scores, (median, deviation) = describe(model.shape(betas), model).numpy(), _population(model)
        targets[rows] = soft_targets(scores, median, deviation)
        kinds[rows] = KINDS.index(f"grey, {framing}")
        shapes[rows] = shape_numbers((scores - median) / deviation, betas.numpy())
    images = np.repeat(images[..., None], 3, axis=-1)
    return LabelledPictures(images, targets, np.array(people) + GREY_PIDS, kinds, shapes, np.zeros(len(people), bool))


def _stream(settings: PeopleSettings, name: str) -> list[int]:
    """The words that seed the teacher's own people."""
    return [settings.seed, zlib.crc32(b"teacher"), zlib.crc32(name.encode())]


@functools.cache
def _body_model(gender: str):
    from fastreid_clip3d.body import load_body_model

    return load_body_model(gender=gender)


def _population(model) -> tuple[np.ndarray, np.ndarray]:
    """Median and standard deviation of the scores of a model's population, [16] each."""
    from fastreid_clip3d.body.descriptors import population_statistics

    statistics = population_statistics(model)
    return statistics.median.numpy(), statistics.standard_deviation.numpy()
