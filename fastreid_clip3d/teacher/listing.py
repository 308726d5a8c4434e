"""The 16 descriptors of single images, as a table, as json and as a sheet of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from fastreid_clip3d.common.figures import save_figure
from fastreid_clip3d.common.images import read_image
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher.clip import Teacher
from fastreid_clip3d.teacher.preprocess import ImageTransform
from fastreid_clip3d.vocabulary import NUM_PAIRS, PHRASE_PAIRS


class ImageLabels(NamedTuple):
    """One image's labels: path, scores float32 [32] (cosines), phrase_choices int64 [16], features float32 [d] (g)."""

    path: str
    scores: np.ndarray
    phrase_choices: np.ndarray
    features: np.ndarray

    def phrases(self) -> list[tuple[str, float, str, float]]:
        """(chosen phrase, its score, opposite, its score) of each pair."""
        rows = []
        for m, pair in enumerate(PHRASE_PAIRS):
            choice = int(self.phrase_choices[m])
            rows.append(
                (
                    pair[choice],
                    float(self.scores[2 * m + choice]),
                    pair[1 - choice],
                    float(self.scores[2 * m + 1 - choice]),
                )
            )
        return rows

    def as_dict(self) -> dict:
        return {
            "image": self.path,
            "descriptors": [
                {"phrase": chosen, "score": round(score, 6), "opposite": other, "opposite_score": round(lower, 6)}
                for chosen, score, other, lower in self.phrases()
            ],
        }

    def table(self) -> str:
        lines = [printable(self.path)]
        lines += [
            f"  {chosen:<20}{score:>8.4f}   over {other:<20}{lower:>8.4f}   by {score - lower:.4f}"
            for chosen, score, other, lower in self.phrases()
        ]
        return "\n".join(lines)


class _Images(Dataset):
    def __init__(self, paths: Sequence[str], transform: ImageTransform) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor | str:
        try:  # errors are returned, since a worker process would wrap them in its own traceback
            image = read_image(self.paths[index])
        except ClearError as error:
            return str(error)
        try:
            return self.transform(image)
        except ClearError as error:
            return f"{printable(self.paths[index])}: {error}"


def _together(items: list[torch.Tensor | str]) -> torch.Tensor | str:
    faults = [item for item in items if isinstance(item, str)]
    return faults[0] if faults else torch.stack([item for item in items if not isinstance(item, str)])


def reading_processes(teacher: Teacher) -> int:
    """Number of processes that read images for a teacher: up to 8 beside CUDA, none on a CPU.

    On a CPU each reader would take a core from the teacher's own forward pass.
    """
    return min(8, os.cpu_count() or 1) if teacher.device.type == "cuda" else 0


def label_images(
    teacher: Teacher, paths: Sequence[str | Path], batch: int = 64, num_workers: int | None = None
) -> Iterator[ImageLabels]:
    """Labels images one after another, reading ahead in `num_workers` processes (None: :func:`reading_processes`).

    Raises:
        ClearError: an image is missing or cannot be decoded (named).
    """
    names = [str(path) for path in paths]
    loader = DataLoader(
        _Images(names, teacher.image_transform),
        batch_size=batch,
        num_workers=reading_processes(teacher) if num_workers is None else num_workers,
        collate_fn=_together,
        pin_memory=teacher.device.type == "cuda",
    )
    done = 0
    for images in loader:
        if isinstance(images, str):
            raise ClearError(images)
        features, scores, choices = (part.cpu().numpy() for part in teacher.label_images(images))
        for row in range(len(images)):
            yield ImageLabels(names[done], scores[row], choices[row], features[row])
            done += 1


def draw_sheet(labels: Sequence[ImageLabels], path: str | Path, columns: int = 4) -> Path:
    """A picture of the images with their phrases beside them.

    A phrase is bold and black where its margin is at least the median of these images, else grey. A single image's
    margins are compared with their own median.
    """
    from matplotlib.figure import Figure

    columns = max(1, min(columns, len(labels)))
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.9 * rows), layout="constrained")
    margins = np.array([[chosen - other for _, chosen, _, other in label.phrases()] for label in labels])
    typical = np.median(margins, axis=0) if len(labels) > 1 else np.full(NUM_PAIRS, np.median(margins))
    for place in range(rows * columns):
        picture, text = (figure.add_subplot(rows, 2 * columns, 2 * place + side) for side in (1, 2))
        picture.axis("off")
        text.axis("off")
        if place >= len(labels):
            continue
        picture.imshow(np.asarray(read_image(labels[place].path)))
        picture.set_title(printable(Path(labels[place].path).name), fontsize=8, parse_math=False)
        for m, (phrase, *_) in enumerate(labels[place].phrases()):
            strong = margins[place, m] >= typical[m]
            text.text(
                0,
                1 - (m + 0.5) / NUM_PAIRS,
                phrase,
                transform=text.transAxes,
                fontsize=9,
                va="center",
                color="black" if strong else "#888888",
                fontweight="bold" if strong else "normal",
            )
    return save_figure(figure, path, dpi=110)
