"""Statistics of a dataset's labels: how balanced each pair is, and whether a person's images agree.

A label that follows the body is the same on all images of a person and differs between persons. A label that follows
the pose, the clothes or nothing agrees within a person no more than between persons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastreid_clip3d.common.figures import save_figure
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import NUM_PAIRS, PHRASE_PAIRS


@dataclass(frozen=True)
class LabelStatistics:
    """Per pair, arrays of [16] in 0..1 (kappa up to 1, 0 = chance).

    phrase_1_share: share of images labelled with phrase 1.
    agreement: probability that two different images of one person have the same label, averaged over persons with at
        least two images; nan without any.
    chance: probability that two images of different persons do.
    kappa: (agreement - chance) / (1 - chance); nan where a label never varies.
    """

    phrase_1_share: np.ndarray
    agreement: np.ndarray
    chance: np.ndarray
    kappa: np.ndarray
    num_images: int
    num_persons: int

    def table(self) -> str:
        """Plain text, one line per pair."""
        lines = [f"{'pair':<36}{'phrase 1':>10}{'agreement':>11}{'chance':>9}{'kappa':>8}"]
        for m, pair in enumerate(PHRASE_PAIRS):
            lines.append(
                f"{pair.phrase_1 + ' / ' + pair.phrase_2:<36}{self.phrase_1_share[m]:>10.3f}{self.agreement[m]:>11.3f}"
                f"{self.chance[m]:>9.3f}{self.kappa[m]:>8.3f}"
            )
        lines.append(
            f"{self.num_images} images of {self.num_persons} persons; kappa 1: same label on all images of a "
            "person, 0: no more alike than between persons"
        )
        return "\n".join(lines)

    def as_dict(self) -> dict:
        """For json; nan becomes None."""

        def plain(values: np.ndarray) -> list[float | None]:
            return [None if np.isnan(value) else float(value) for value in values]

        return {
            "pairs": [f"{pair.phrase_1} / {pair.phrase_2}" for pair in PHRASE_PAIRS],
            "phrase_1_share": plain(self.phrase_1_share),
            "agreement": plain(self.agreement),
            "chance": plain(self.chance),
            "kappa": plain(self.kappa),
            "images": self.num_images,
            "persons": self.num_persons,
        }


def label_statistics(phrase_choices: np.ndarray, pids: np.ndarray) -> LabelStatistics:
    """Balance and agreement of labels.

    Args:
        phrase_choices: [N, 16], 0 = phrase 1.
        pids: [N], who is on each image.

    Raises:
        ClearError: no images, or shapes that do not fit each other.

    Two people, two images each. All 16 labels of an image are its person's, so nothing agrees between people:

    >>> choices = np.array([[0] * 16, [0] * 16, [1] * 16, [1] * 16])
    >>> found = label_statistics(choices, np.array([5, 5, 9, 9]))
    >>> [float(values[0]) for values in (found.phrase_1_share, found.agreement, found.chance, found.kappa)]
    [0.5, 1.0, 0.0, 1.0]
    """
    choices, pids = np.asarray(phrase_choices), np.asarray(pids)
    if choices.ndim != 2 or choices.shape[1] != NUM_PAIRS or len(choices) != len(pids) or not len(pids):
        raise ClearError(
            f"label statistics need [N, {NUM_PAIRS}] labels and N person ids; got {choices.shape}, {pids.shape}."
        )
    persons, index = np.unique(pids, return_inverse=True)
    count = np.bincount(index).astype(np.float64)
    second = np.stack(
        [np.bincount(index, weights=choices[:, m], minlength=len(persons)) for m in range(NUM_PAIRS)], axis=1
    )
    first = count[:, None] - second
    same_pairs = (first * (first - 1) + second * (second - 1)) / 2
    all_pairs = (count * (count - 1) / 2)[:, None]
    several = count >= 2
    with np.errstate(invalid="ignore", divide="ignore"):
        agreement = (same_pairs[several] / all_pairs[several]).mean(0) if several.any() else np.full(NUM_PAIRS, np.nan)
        total = len(pids)
        ones, twos = first.sum(0), second.sum(0)
        same_everywhere = (ones * (ones - 1) + twos * (twos - 1)) / 2
        other_pairs = total * (total - 1) / 2 - all_pairs.sum()
        chance = (same_everywhere - same_pairs.sum(0)) / other_pairs
        kappa = (agreement - chance) / (1 - chance)
    return LabelStatistics(ones / total, agreement, chance, kappa, total, len(persons))


def whole_persons(pids: Sequence, most: int) -> list[int]:
    """Rows of the first persons whose images together are at most `most` (at least one person); 0: all rows."""
    if most <= 0:
        return list(range(len(pids)))
    rows: dict = {}
    for row, pid in enumerate(pids):
        rows.setdefault(pid, []).append(row)
    taken: list[int] = []
    for own in rows.values():
        if taken and len(taken) + len(own) > most:
            break
        taken += own
    return sorted(taken)


def plot_statistics(statistics: LabelStatistics, path: str | Path, title: str = "") -> Path:
    """Writes the table as a picture: balance on the left, agreement against chance on the right."""
    from matplotlib.figure import Figure

    rows = np.arange(NUM_PAIRS)[::-1]
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    balance, agreement = figure.subplots(1, 2)
    balance.barh(rows, statistics.phrase_1_share, color="#4477aa", label="phrase 1")
    balance.barh(rows, 1 - statistics.phrase_1_share, left=statistics.phrase_1_share, color="#ddaa33", label="phrase 2")
    balance.axvline(0.5, color="black", linewidth=0.8)
    balance.set_yticks(rows, [f"{pair.phrase_1} / {pair.phrase_2}" for pair in PHRASE_PAIRS])
    balance.set_xlim(0, 1)
    balance.set_xlabel("share of images")
    balance.legend(loc="lower right")
    agreement.barh(rows + 0.2, statistics.agreement, height=0.4, color="#228833", label="two images of one person")
    agreement.barh(rows - 0.2, statistics.chance, height=0.4, color="#bbbbbb", label="of two persons")
    agreement.set_yticks(rows, [])
    agreement.set_xlim(0, 1)
    agreement.set_xlabel("probability of the same label")
    agreement.legend(loc="lower right")
    heading = title or f"labels of {statistics.num_images} images, {statistics.num_persons} persons"
    figure.suptitle(heading, parse_math=False)
    return save_figure(figure, path, dpi=120)
