"""A small SynthCC-tiny in both renderings, synthetic bodies and a tiny teacher; options for two iterations on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.standins import tiny_teacher_folder, write_bodies

PEOPLE = {"train": range(8), "test": range(400, 404), "val": range(550, 553)}
FOLDERS = {"train": ("train",), "test": ("query", "gallery"), "val": ("val_query", "val_gallery")}


def make_benchmark(root: Path) -> Path:
    """Writes everything below `root` and returns it: 32 training images, 8 queries, 16 gallery images, 6 bodies."""
    generator = np.random.default_rng(0)
    files, splits, choices, bodies = [], [], [], []
    for group, people in PEOPLE.items():
        for person in people:
            descriptors, betas = generator.integers(0, 2, 16), generator.standard_normal(10)
            for folder in FOLDERS[group]:
                for outfit in (1, 2):
                    for camera in (1,) if "query" in folder else (2, 3) if "gallery" in folder else (1, 2):
                        name = f"{folder}/{person:04d}_o{outfit}_c{camera}_00.jpg"
                        shade = np.array([20 * (person % 12), 90 * outfit, 100])
                        path = root / "SynthCC-tiny" / name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        noise = generator.integers(0, 30, (32, 16, 3))
                        Image.fromarray((shade + noise).clip(0, 255).astype(np.uint8)).save(path)
                        files.append(name)
                        splits.append(folder)
                        choices.append(descriptors)
                        bodies.append(betas)
    arrays = {"files": np.array(files), "split": np.array(splits), "phrase_choices": np.array(choices)}
    arrays |= {"betas": np.array(bodies, np.float32), "scores": 0.7 - 1.4 * np.array(choices, np.float32)}
    np.savez(root / "SynthCC-tiny" / "index.npz", **arrays)
    shutil.copytree(root / "SynthCC-tiny", root / "SynthCC-tiny-shape-only")
    write_bodies(root / "SyntheticBodies")
    tiny_teacher_folder(root / "teacher")
    return root


def teacher_options(data: Path) -> list[str]:
    return ["MODEL.TEACHER.NAME", f"local-dir:{data / 'teacher'}", "MODEL.TEACHER.PRETRAINED", "''"]


def tiny_options(data: Path) -> list[str]:
    """Two iterations on 32 x 16 images."""
    pairs = {
        "MODEL.BACKBONE.PRETRAIN": "False",
        "INPUT.SIZE_TRAIN": "[32, 16]",
        "INPUT.SIZE_TEST": "[32, 16]",
        "SOLVER.IMS_PER_BATCH": "16",
        "SOLVER.MAX_EPOCH": "1",
        "SOLVER.WARMUP_ITERS": "0",
        "SOLVER.WARMUP_EPOCHS": "0",
        "DATALOADER.NUM_INSTANCE": "2",
        "DATALOADER.NUM_WORKERS": "0",
    }
    return [text for pair in pairs.items() for text in pair] + teacher_options(data)
