"""A run that takes seconds: 8 people in 2 outfits, 6 synthetic bodies, a tiny teacher, ResNet-18 on 64 x 32 images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import REPOSITORY
from tests.standins import tiny_teacher_folder, write_bodies

CONFIG = str(REPOSITORY / "configs" / "CLIP3D" / "celeb.yml")
TRAINING_IMAGES = 32


def write_datasets(root: Path) -> Path:
    """Fills the folder that ``FASTREID_DATASETS`` is to name."""
    generator = np.random.default_rng(0)
    lines = ["path,pid,camid,clothes,split"]
    for person in range(8):
        for outfit in range(2):
            for split, cameras in (("train", 2), ("query", 1), ("gallery", 2)):
                for camera in range(cameras):
                    name = f"{split}_{person}_{outfit}_{camera}.png"
                    shade = np.array([20 * person, 90 * outfit + 60, 100])
                    noise = generator.integers(0, 30, (32, 16, 3))
                    Image.fromarray((shade + noise).clip(0, 255).astype(np.uint8)).save(root / name)
                    lines.append(f"{name},{person},{camera + (5 if split == 'query' else 0)},{outfit},{split}")
    (root / "dataset.csv").write_text("\n".join(lines) + "\n")
    write_bodies(root / "SyntheticBodies")
    tiny_teacher_folder(root / "teacher")
    return root


def options(data: Path, output: Path, **changed: str) -> list[str]:
    """``KEY VALUE`` pairs for the paper's config; a changed key is written with __ for the dots."""
    given = {
        "MODEL.DEVICE": "cpu",
        "MODEL.BACKBONE.PRETRAIN": "False",
        "MODEL.BACKBONE.DEPTH": "18x",
        "MODEL.BACKBONE.FEAT_DIM": "512",
        "MODEL.TEACHER.NAME": f"local-dir:{data / 'teacher'}",
        "MODEL.TEACHER.PRETRAINED": "''",
        "MODEL.TEACHER.MODE": "online",
        "DATASETS.NAMES": "('CSVDataset',)",
        "DATASETS.TESTS": "('CSVDataset',)",
        "DATALOADER.NUM_WORKERS": "0",
        "DATALOADER.NUM_INSTANCE": "2",
        "DATALOADER.SYNTHETIC_PER_BATCH": "4",
        "INPUT.SIZE_TRAIN": "[64, 32]",
        "INPUT.SIZE_TEST": "[64, 32]",
        "SOLVER.IMS_PER_BATCH": "16",
        "SOLVER.MAX_EPOCH": "1",
        "SOLVER.CHECKPOINT_PERIOD": "1",
        "SOLVER.WARMUP_ITERS": "0",
        "SOLVER.WARMUP_EPOCHS": "0",
        "SOLVER.AMP.ENABLED": "False",
        "TEST.PRECISE_BN.ENABLED": "False",
        "WRITE_PERIOD": "1",
        "OUTPUT_DIR": str(output),
        "SEED": "0",
    }
    given.update({key.replace("__", "."): value for key, value in changed.items()})
    return [text for pair in given.items() for text in pair]
