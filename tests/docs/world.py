"""A reader's machine in miniature: the repository after ``make demo``, licensed datasets, files of one's own."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import REPOSITORY
from tests.data.miniatures import ltcc
from tests.docs.in_process import run_tool
from tests.docs.stand_ins import RULES
from tests.inference.footage import frames_and_boxes, write_mot, write_video
from tests.standins import tiny_teacher_folder

PEOPLE = {"train": 8, "test": 12, "val": 4}
NAMED_PERSON = re.compile(r"SynthCC-tiny/query/(?:\{)?(\d{4})|\b(\d{4})_o\d_c\d_\d\d")
RUNS = {"baseline": "configs/Baselines/synthcc_bagtricks.yml", "clip3d": "configs/CLIP3D/synthcc.yml"}


def draw(path: Path, shade: tuple[int, ...], generator: np.random.Generator, size: tuple[int, int] = (64, 32)) -> None:
    """A noisy picture of one colour; its name tells the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = generator.integers(0, 30, (*size, 3))
    Image.fromarray((np.array(shade) + noise).clip(0, 255).astype(np.uint8)).save(path)


def make_world(root: Path, documents: str) -> Path:
    """Fills `root`; `documents` is their text, so that the people whose pictures they name are there."""
    for name in ("configs", "tools"):
        (root / name).symlink_to(REPOSITORY / name, target_is_directory=True)
    shutil.copytree(REPOSITORY / "docs", root / "docs")
    generator = np.random.default_rng(0)
    _synthcc(root / "datasets" / "demo" / "SynthCC-tiny", documents, generator)
    _celeb_reid(root / "datasets" / "Celeb-reID", generator)
    ltcc(root / "datasets")
    tiny_teacher_folder(root / "teacher")
    _own_files(root, generator)
    _demo(root)
    return root


def copy_world(world: Path, target: Path) -> Path:
    """The same world for one document; files are shared, the documents copied."""
    shutil.copytree(world, target, symlinks=True, copy_function=os.link, ignore=shutil.ignore_patterns("docs"))
    shutil.copytree(world / "docs", target / "docs")
    return target


def _synthcc(folder: Path, documents: str, generator: np.random.Generator) -> None:
    """SynthCC-tiny with the real set's names for a few of its people, and noise for pictures."""
    from fastreid_clip3d.body.poses import load_pose_pool
    from fastreid_clip3d.synthcc.plan import TINY, plan_person

    named = {int(number) for groups in NAMED_PERSON.findall(documents) for number in groups if number}
    num_poses = len(load_pose_pool())
    files, splits, choices = [], [], []
    for population, first, count in TINY.populations:
        chosen = {*range(first, first + PEOPLE[population]), *(n for n in named if first <= n < first + count)}
        for person in sorted(chosen):
            descriptors = generator.integers(0, 2, 16)
            for plan in plan_person(TINY, population, person, num_poses):
                outfit, image = plan.outfit, int(plan.file[-6:-4])
                if outfit > 1 or image > 2:
                    continue
                draw(folder / plan.file, (20 * (person % 12), 90 * outfit + 30, 100), generator)
                files.append(plan.file)
                splits.append(plan.split)
                choices.append(descriptors)
    np.savez(folder / "index.npz", files=np.array(files), split=np.array(splits), phrase_choices=np.array(choices))


def _celeb_reid(folder: Path, generator: np.random.Generator) -> None:
    for person in range(1, 9):
        for split, images in (("train", (1, 2, 3, 4)), ("query", (1,)), ("gallery", (2, 3))):
            for image in images:
                draw(folder / split / f"{person}_{image}_0.jpg", (25 * person, 40 * image, 80), generator)


def _own_files(root: Path, generator: np.random.Generator) -> None:
    """What a reader brings along."""
    from fastreid_clip3d.body.files import read_fields

    for number, name in enumerate(("a.jpg", "b.jpg", "person.jpg", "other.png", "people/one.jpg", "people/two.jpg")):
        draw(root / name, (30 * number, 120, 90), generator)
    for person in ("anna", "ben", "cleo", "dan"):
        for number in (1, 2, 3):
            draw(root / "my_photos" / person / f"{number}.jpg", (40 * number, 80, 120), generator)
    frames, truth = frames_and_boxes()
    write_video(root / "walk.mp4", frames)
    write_mot(root / "walk.txt", truth)
    np.savez(root / "my_poses.npz", poses=0.1 * generator.standard_normal((3, 72)))
    smpl = root / "home" / "smpl"
    smpl.mkdir(parents=True)
    for gender in ("female", "male"):
        np.savez(smpl / f"SMPL_{gender.upper()}.npz", **read_fields("", gender)[0])


def _demo(root: Path) -> None:
    """What `make demo` leaves: bodies, weights, and two runs, by the same verbs with the stand-ins of every command.

    The bodies also lie beside the licensed datasets, where README.md puts them.
    """
    from fastreid_clip3d.modeling.backbones.pretrained import export_mobilenetv2_weights

    weights = export_mobilenetv2_weights(root / "datasets" / "demo" / "mobilenetv2_imagenet.pth")
    environment = {"FASTREID_DATASETS": "datasets/demo"}
    commands = [["clip3d", "render-bodies"]]
    for name, config in RUNS.items():
        options = {"MODEL.BACKBONE.PRETRAIN_PATH": str(weights), "OUTPUT_DIR": f"logs/demo/{name}"}
        options |= {"WRITE_PERIOD": "1", "TEST.EVALUATION.SAVE_FEATURES": "True"}
        pairs = [text for pair in options.items() for text in pair]
        commands.append(["clip3d", "train", "--config-file", config, *pairs])
    for words in commands:
        for rule in RULES:
            words = rule.apply(words) if rule.fits(words) else words
        assert run_tool(words, root, environment) == 0, " ".join(words)
    shutil.copytree(root / "datasets" / "demo" / "SyntheticBodies", root / "datasets" / "SyntheticBodies")
    features = root / "logs" / "demo" / "clip3d" / "evaluation" / "SynthCCTiny_features.npz"
    for name in ("ltcc.npz", "msmt17.npz"):
        shutil.copy(features, root / name)
