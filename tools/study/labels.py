"""Measures how often a teacher's 16 labels equal the true descriptors of SynthCC's people, pair by pair.

Shape letters: N images, 16 pairs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.synthcc.index import true_choices
from fastreid_clip3d.vocabulary import NUM_PAIRS, PHRASE_PAIRS
from tools.study.results import machine
from tools.study.variants import folder_name, split_teacher

SPLITS = {"train": ("train",), "val": ("val_query", "val_gallery")}
"""By split, the folders of SynthCC-tiny; index.npz uses the same names."""


@dataclass(frozen=True)
class LabelQuality:
    """Figures of one teacher on one split: float [16], fractions.

    Attributes:
        images: number of images.
        accuracy: share of the images whose label is true.
        majority_rate: accuracy of always answering with the split's more frequent phrase.
        balanced_accuracy: mean of the two phrases' recalls. Guessing gives 0.5, whatever the majority. A pair of which
            the split has one phrase only has that phrase's recall.
    """

    images: int
    accuracy: np.ndarray
    majority_rate: np.ndarray
    balanced_accuracy: np.ndarray


def label_quality(labels: np.ndarray, truth: np.ndarray) -> LabelQuality:
    """Compares labels with the truth, both [N, 16] of 0 (phrase 1) and 1 (phrase 2), N at least 1."""
    right, second = labels == truth, truth == 1
    share_of_second = second.mean(0)
    recalls = []
    for phrase in (~second, second):
        count = phrase.sum(0)
        recalls.append(np.where(count > 0, (right & phrase).sum(0) / np.maximum(count, 1), np.nan))
    balanced = np.nanmean(np.stack(recalls), axis=0)
    return LabelQuality(len(truth), right.mean(0), np.maximum(share_of_second, 1 - share_of_second), balanced)


def measure(
    teachers: Sequence[str], dataset: Path, folder: Path, splits: Sequence[str] = tuple(SPLITS)
) -> tuple[dict[tuple[str, str], LabelQuality], dict[str, str]]:
    """Labels the images of each split with each teacher and compares the labels with the truth.

    Args:
        teachers: for example "embedded" or "ViT-B-32:openai".
        dataset: folder of a SynthCC set.
        folder: the caches of the answers are kept below it, so that a second call is quick.
        splits: keys of SPLITS.

    Returns:
        the figures by (teacher, split), and for each teacher that cannot be loaded the reason.
    """
    from fastreid_clip3d.teacher.cache import TeacherCache, build_cache
    from fastreid_clip3d.teacher.clip import load_teacher

    found: dict[tuple[str, str], LabelQuality] = {}
    left_out: dict[str, str] = {}
    for name in teachers:
        try:
            teacher = load_teacher(*split_teacher(name))
        except ClearError as error:
            left_out[name] = str(error)
            print(f"left out: {name}: {error}", flush=True)
            continue
        for split in splits:
            truth = true_choices(dataset, SPLITS[split])
            paths = [dataset / file for file in truth]
            cache_at = folder / folder_name(name) / split
            build_cache(paths, teacher, cache_at, root=dataset, images_per_shard=256, rebuild=True)
            cache = TeacherCache(cache_at)
            labels = np.stack([cache.lookup(path)[1].numpy() for path in paths])
            found[name, split] = label_quality(labels, np.stack(list(truth.values())))
    return found, left_out


def write_quality(
    folder: Path, found: dict[tuple[str, str], LabelQuality], left_out: dict[str, str], command: str
) -> str:
    """Writes ``results.csv`` and ``results.md`` into `folder`; returns the markdown."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["teacher", "split", "pair", "images", "accuracy", "majority_rate", "balanced_accuracy"])
    for (teacher, split), quality in found.items():
        columns = zip(PHRASE_PAIRS, quality.accuracy, quality.majority_rate, quality.balanced_accuracy)
        for pair, *values in columns:
            numbers = [f"{value:.6f}" for value in values]
            writer.writerow([teacher, split, f"{pair.phrase_1} / {pair.phrase_2}", quality.images, *numbers])
    parts = ["# The teacher's labels against the true descriptors, on SynthCC-tiny", ""]
    for split in dict.fromkeys(split for _, split in found):
        of_split = {teacher: quality for (teacher, other), quality in found.items() if other == split}
        first = next(iter(of_split.values()))
        of_teachers = (f"{teacher}{what}" for teacher in of_split for what in ("", ", balanced"))
        headers = ["pair", "majority rate", *of_teachers]
        lines = []
        for row, pair in enumerate(PHRASE_PAIRS):
            values = [first.majority_rate[row]]
            for quality in of_split.values():
                values += [quality.accuracy[row], quality.balanced_accuracy[row]]
            lines.append([f"{pair.phrase_1} / {pair.phrase_2}", *values])
        means = np.mean([line[1:] for line in lines], axis=0)
        lines.append([f"mean of the {NUM_PAIRS}", *means])
        cells = [[line[0], *(f"{100 * value:.1f}" for value in line[1:])] for line in lines]
        table = tabulate(cells, headers, tablefmt="pipe", disable_numparse=True)
        parts += [f"## {split}: {first.images} images", "", table, ""]
    parts += ["Percent of the images; balanced: mean of the recalls of the two phrases.", ""]
    parts += [f"- left out: {teacher}: {reason}" for teacher, reason in left_out.items()]
    parts += [f"- command: `{command}`", f"- machine: {machine()}", ""]
    markdown = "\n".join(parts)
    write_atomically(folder / "results.csv", text.getvalue().encode())
    write_atomically(folder / "results.md", markdown.encode())
    return markdown


def table_of_labels(teachers: Sequence[str], study_folder: Path, data_folder: Path, command: str) -> None:
    """Does the work of ``--table labels``; renders SynthCC-tiny below `data_folder` first if it is missing.

    Raises:
        ClearError: no teacher can be loaded.
    """
    from tools.study.demo import Demo

    folder, data = Path(study_folder).absolute() / "tablelabels", Path(data_folder).absolute()
    if not (data / "SynthCC-tiny" / "index.npz").is_file():
        Demo(data, folder).prepare()
    found, left_out = measure(teachers, data / "SynthCC-tiny", folder)
    if not found:
        raise ClearError("None of the teachers can be loaded. The lines above say why.")
    print("\n" + write_quality(folder, found, left_out, command))
    print(f"{folder}/results.csv, results.md")
