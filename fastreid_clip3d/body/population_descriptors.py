"""The true descriptors of many bodies of both sexes.

Legend: N bodies, K shape coefficients, M = 16 descriptors.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from fastreid_clip3d.body.constants import GENDERS
from fastreid_clip3d.body.descriptors import describe, label, population_statistics
from fastreid_clip3d.body.model import BodyModel
from fastreid_clip3d.vocabulary import NUM_PAIRS

_AT_ONCE = 50
"""Most bodies of one sex whose descriptors are computed together."""


def describe_population(
    models: Sequence[BodyModel], betas: np.ndarray, workers: int
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Scores float32 [N, 16], phrase choices int64 [N, 16], and the thresholds and statistics behind them.

    Args:
        models: one per sex, in the order of ``GENDERS``.
        betas: float32 [N, K]; the sexes take turns, so body n has sex n modulo 2.
        workers: threads.
    """

    def scored(body: int) -> torch.Tensor:
        model = models[body % len(GENDERS)]
        part = betas[body : body + step : len(GENDERS)]
        return describe(model.shape(torch.from_numpy(part)), model)

    step = _AT_ONCE * len(GENDERS)
    scores = np.zeros((len(betas), NUM_PAIRS), np.float32)
    choices = np.zeros((len(betas), NUM_PAIRS), np.int64)
    thresholds, population = {}, {}
    with ThreadPoolExecutor(workers) as executor:
        populations = [executor.submit(population_statistics, model) for model in models]
        firsts = [range(code, len(betas), step) for code in range(len(GENDERS))]
        parts = [[executor.submit(scored, first) for first in row] for row in firsts]
        for code, gender in enumerate(GENDERS):
            statistics = populations[code].result()
            thresholds[gender] = statistics.median.tolist()
            population[gender] = statistics.as_dict()
            if parts[code]:
                found = torch.cat([part.result() for part in parts[code]])
                rows = slice(code, None, len(GENDERS))
                scores[rows], choices[rows] = found.numpy(), label(found, statistics.median).numpy()
    return scores, choices, {"thresholds": thresholds, "population": population}
