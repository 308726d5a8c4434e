"""The 16 descriptors of a body (paper, Table 1) as scores from measurements of its mesh, and labels from the scores.

A score grows towards phrase 1 of its pair. Nearly all are logarithms of ratios of measurements, so a score of one body
minus that of another says by which factor they differ; only Heavyset, Tall and Stocky depend on absolute size.
A label says on which side of the median of the body's own sex the score lies. Shapes: B bodies, V vertices, M = 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastreid_clip3d.body.measurements import MeasurableBody, Measurements, measure
from fastreid_clip3d.body.sampling import sample_betas
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import NUM_PAIRS, PHRASE_PAIRS

if TYPE_CHECKING:
    from fastreid_clip3d.body.model import BodyModel

POPULATION_SIZE = 1000
POPULATION_SEED = 16
"""Number of bodies of one sex whose median is the threshold, and the seed to draw them with."""

_POPULATION_CHUNK = 256  # bodies whose vertices are in memory at a time


@dataclass(frozen=True)
class Descriptor:
    """One pair's score: how it is computed and what it means."""

    phrase_1: str
    score: Callable[[Measurements], Tensor]  # [B] from measurements [B] each
    meaning: str


def _logs(*values: Tensor) -> Tensor:
    """Mean of the logarithms, [B]."""
    return torch.stack(values).log().mean(dim=0)


def _muscular(m: Measurements) -> Tensor:
    limbs = _logs(m.upper_arm_girth, m.forearm_girth, m.thigh_girth, m.calf_girth)
    return limbs - _logs(m.waist_girth, m.underbust_girth)


def _athletic(m: Measurements) -> Tensor:
    upper = _logs(m.shoulder_breadth, m.chest_breadth, m.upper_arm_girth, m.forearm_girth)
    return upper - _logs(m.waist_girth, m.underbust_girth)


def _fit(m: Measurements) -> Tensor:
    # The forearm keeps a body that is thin for lack of muscle from passing for fit.
    lean = (5 * _logs(m.stature) + _logs(m.forearm_girth)) / 6
    return lean - _logs(m.waist_girth, m.underbust_girth, m.belly_girth)


def _large_breasted(m: Measurements) -> Tensor:
    # Girths below and above, since a bust of a few per cent of its girth must show beside the build of the chest.
    around = _logs(m.bust_girth) - _logs(m.underbust_girth, m.upper_chest_girth)
    return around + 4 * m.bust_protrusion / m.stature


def _by_stature(*names: str) -> Callable[[Measurements], Tensor]:
    return lambda m: _logs(*(getattr(m, name) for name in names)) - _logs(m.stature)


DESCRIPTORS: tuple[Descriptor, ...] = (
    Descriptor("Muscular", _muscular, "girths of the limbs against waist and rib cage"),
    Descriptor("Broad-Shouldered", _by_stature("shoulder_breadth"), "shoulder breadth by stature"),
    Descriptor("Heavyset", _by_stature("volume"), "volume by stature: the mean cross-section"),
    Descriptor("Tall", lambda m: _logs(m.stature), "stature"),
    Descriptor("Long Legs", _by_stature("hip_height"), "hip height by stature"),
    Descriptor("Long Torso", _by_stature("torso_length"), "hip to neck by stature"),
    Descriptor(
        "Curvy", lambda m: _logs(m.chest_girth, m.hip_girth) - _logs(m.waist_girth), "chest and hips against waist"
    ),
    Descriptor("Full-Figured", _by_stature("chest_girth", "hip_girth"), "chest and hips by stature"),
    Descriptor(
        "Stocky",
        lambda m: _logs(m.trunk_girth) - 1.5 * _logs(m.stature),
        "girth of the trunk by stature, more so in a short body",
    ),
    Descriptor(
        "Pear-Shaped",
        lambda m: _logs(m.hip_girth) - _logs(m.chest_girth, m.waist_girth),
        "hips against chest and waist",
    ),
    Descriptor("Athletic", _athletic, "shoulders, chest and arms against waist and rib cage"),
    Descriptor("Fit", _fit, "stature and forearms against waist, rib cage and belly"),
    Descriptor(
        "Large-Breasted", _large_breasted, "bust against the girths below and above it, and how far it stands out"
    ),
    Descriptor(
        "Long-Armed",
        lambda m: (m.upper_arm_length + m.forearm_length).log() - _logs(m.stature),
        "shoulder to wrist by stature",
    ),
    Descriptor("Long-Necked", _by_stature("neck_length"), "neck joint to head joint by stature"),
    Descriptor("High-Waisted", _by_stature("waist_height"), "waist height by stature"),
)
"""In the order of `fastreid_clip3d.vocabulary.PHRASE_PAIRS`."""


def scores_from_measurements(measurements: Measurements) -> Tensor:
    """Scores [B, 16] from measurements in metres."""
    return torch.stack([descriptor.score(measurements) for descriptor in DESCRIPTORS], dim=1)


def describe(vertices: Tensor, body_model: MeasurableBody) -> Tensor:
    """Scores [B, 16] of T-posed bodies [B, V, 3]; greater means more like phrase 1. Errors as of `measure`."""
    return scores_from_measurements(measure(vertices, body_model))


def label(scores: Tensor, thresholds: Tensor) -> Tensor:
    """Phrase choices int64 [..., 16]: 0 (phrase 1) where the score is above the threshold, otherwise 1 (phrase 2).

    The thresholds [16], or of any shape that broadcasts to the scores, are those of the body's own sex.

    Raises:
        ClearError: wrong shapes or numbers that are not finite.
    """
    for name, tensor in (("scores", scores), ("thresholds", thresholds)):
        if tensor.ndim == 0 or tensor.shape[-1] != NUM_PAIRS:
            raise ClearError(f"{name}: wanted [..., {NUM_PAIRS}], got {list(tensor.shape)}")
        if not torch.isfinite(tensor).all():
            raise ClearError(f"{name} hold NaN or infinite numbers; check the bodies they come from")
    return torch.where(scores > thresholds.to(scores), 0, 1)


@dataclass(frozen=True)
class PopulationStatistics:
    """How the scores of one sex are spread, each tensor float32 [16]."""

    median: Tensor
    mean: Tensor
    standard_deviation: Tensor
    lower_quartile: Tensor
    upper_quartile: Tensor
    count: int
    seed: int
    fingerprint: str  # of the body model

    def as_dict(self) -> dict[str, object]:
        """Plain numbers and lists, for JSON."""
        values = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in vars(self).items()}
        return {"phrases_1": [pair.phrase_1 for pair in PHRASE_PAIRS], **values}


def population_statistics(
    body_model: BodyModel, count: int = POPULATION_SIZE, seed: int = POPULATION_SEED
) -> PopulationStatistics:
    """Statistics of the scores over a population of `count` bodies of one sex, drawn from `seed`.

    A few seconds for 1,000 bodies; computed once for each model, count and seed while the process lives.

    Raises:
        ClearError: fewer than two bodies, or a model whose bodies cannot be measured.
    """
    if count < 2:
        raise ClearError(f"population of a body model: at least 2 bodies are needed for statistics, got {count}")
    key = (body_model.fingerprint(), count, seed)
    if key not in _known_statistics:
        _known_statistics[key] = _compute_statistics(body_model, *key)
    return _known_statistics[key]


_known_statistics: dict[tuple[str, int, int], PopulationStatistics] = {}


def _compute_statistics(body_model: BodyModel, fingerprint: str, count: int, seed: int) -> PopulationStatistics:
    betas = torch.from_numpy(sample_betas(count, seed, body_model.shapedirs.shape[2]))
    scores = torch.cat([describe(body_model.shape(part), body_model) for part in betas.split(_POPULATION_CHUNK)]).cpu()
    quartiles = torch.quantile(scores, scores.new_tensor([0.25, 0.5, 0.75]), dim=0)
    return PopulationStatistics(
        median=quartiles[1],
        mean=scores.mean(dim=0),
        standard_deviation=scores.std(dim=0),
        lower_quartile=quartiles[0],
        upper_quartile=quartiles[2],
        count=count,
        seed=seed,
        fingerprint=fingerprint,
    )


def population_thresholds(body_model: BodyModel, count: int = POPULATION_SIZE, seed: int = POPULATION_SEED) -> Tensor:
    """Thresholds [16] of a body model: the medians of its seeded population."""
    return population_statistics(body_model, count, seed).median.clone()
