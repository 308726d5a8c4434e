"""How well phrases find people, measured by the true descriptors of SynthCC's bodies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score
from tabulate import tabulate

from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.data.datasets import build_dataset
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.pictures import Entry
from fastreid_clip3d.inference.search.phrases import patch_means, phrase_directions
from fastreid_clip3d.synthcc.index import true_choices_of
from fastreid_clip3d.vocabulary import PHRASES

TOP = 10
DRAWS = 100
PERMUTATIONS = 1000


@dataclass(frozen=True)
class PhraseQuality:
    """Fractions by phrase, each float64 [32] in the vocabulary's order.

    Args:
        people, images: numbers of ranked people and of their images.
        base_rate: the share of people whom the phrase fits, which is the precision of a random order.
        precision: precision at 10 where a person's score is the mean over their images.
        single_precision: precision at 10 with one random image per person, the mean of :data:`DRAWS` draws.
        auc: probability that a person whom the phrase fits has a higher score than one whom it does not; 0.5 is chance.
            A phrase and its opposite have the same.
        chance: the 2.5 % and 97.5 % quantiles of the mean precision at 10 over the phrases, where we shuffle the people
            against their descriptors :data:`PERMUTATIONS` times.
    """

    people: int
    images: int
    base_rate: np.ndarray
    precision: np.ndarray
    single_precision: np.ndarray
    auc: np.ndarray
    chance: tuple[float, float]

    def table(self) -> str:
        """A markdown table, percent, with the mean over the phrases last."""
        columns = (self.base_rate, self.precision, self.single_precision, self.auc)
        rows = [[phrase, *(100 * column[row] for column in columns)] for row, phrase in enumerate(PHRASES)]
        rows.append(["mean", *(100 * np.nanmean(column) for column in columns)])
        headers = ["phrase", "base rate", "precision at 10", "one image per person", "AUC"]
        low, high = (100 * bound for bound in self.chance)
        return (
            tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f", missingval="-")
            + f"\n\n{self.people} people, {self.images} images. The mean precision at 10 is "
            + f"{100 * self.precision.mean():.1f} %; "
            f"where scores are shuffled among the people it lies between {low:.1f} and {high:.1f} % in 95 of 100 cases."
        )

    def as_dict(self) -> dict[str, Any]:
        names = ("base_rate", "precision", "single_precision", "auc")
        phrases = {
            phrase: {
                name: None if np.isnan(getattr(self, name)[row]) else float(getattr(self, name)[row]) for name in names
            }
            for row, phrase in enumerate(PHRASES)
        }
        mean = {name: float(np.nanmean(getattr(self, name))) for name in names}
        return {
            "people": self.people, "images": self.images, "mean": mean, "chance": list(self.chance), "phrases": phrases,
        }  # fmt: skip


def measure_phrases(
    model: ReIDModel,
    run: str | Path,
    dataset_name: str,
    batch_size: int = 64,
    progress: bool = True,
    seed: int = 0,
    root: str = "",
) -> PhraseQuality:
    """Ranks the test people of a SynthCC set by each phrase.

    Args:
        run: the run folder or checkpoint of `model`. root: the datasets' folder; "": FASTREID_DATASETS.

    Raises:
        ClearError: the model has no text space, or the dataset is unknown, missing or without true descriptors.
    """
    _, directions = phrase_directions(model, run, PHRASES)
    dataset = build_dataset(dataset_name, root)
    records = [*dataset.query, *dataset.gallery]
    truth = true_choices_of(dataset.dataset_dir, [record[0] for record in records])
    entries = [Entry(record[0], (Path(record[0]),)) for record in records]
    vectors = []
    for _, outcome in patch_means(model, entries, batch_size, progress):
        if isinstance(outcome, UnreadableImage):
            raise outcome
        vectors.append(outcome)
    pids = np.array([record[1] for record in records])
    return rank_people(np.stack(vectors) @ directions.T, pids, truth, seed)


def rank_people(scores: np.ndarray, pids: np.ndarray, choices: np.ndarray, seed: int = 0) -> PhraseQuality:
    """Precision of scores.

    Args:
        scores: [N, 32], of images. `pids`: int [N]. `choices`: [N, 16], the same for all images of a person.

    Raises:
        ClearError: fewer people than :data:`TOP`.
    """
    people, first, inverse = np.unique(pids, return_index=True, return_inverse=True)
    if len(people) < TOP:
        raise ClearError(f"precision at {TOP} needs {TOP} people or more, and there are {len(people)}")
    choices = choices[first]
    fits = np.stack([choices[:, row // 2] == row % 2 for row in range(len(PHRASES))], axis=1)
    counts = np.bincount(inverse)
    means = np.stack([np.bincount(inverse, column) / counts for column in scores.T], axis=1)
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(inverse == person) for person in range(len(people))]
    singles = [_precision(scores[[generator.choice(rows) for rows in members]], fits) for _ in range(DRAWS)]
    shuffled = [_precision(means, fits[generator.permutation(len(people))]).mean() for _ in range(PERMUTATIONS)]
    return PhraseQuality(
        len(people),
        len(pids),
        fits.mean(0),
        _precision(means, fits),
        np.mean(singles, axis=0),
        _auc(means, fits),
        tuple(np.quantile(shuffled, (0.025, 0.975)).tolist()),
    )


def _precision(scores: np.ndarray, fits: np.ndarray) -> np.ndarray:
    """Precision at 10 of each column, [32]."""
    best = np.argsort(-scores, axis=0, kind="stable")[:TOP]
    return np.take_along_axis(fits, best, axis=0).mean(0)


def _auc(scores: np.ndarray, fits: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each column, [32]; NaN where a phrase fits everybody or nobody."""
    return np.array(
        [roc_auc_score(fit, score) if 0 < fit.sum() < len(fit) else np.nan for fit, score in zip(fits.T, scores.T)]
    )
