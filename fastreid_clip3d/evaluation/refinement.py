"""Better answers from the same features: NFC, query expansion and re-ranking, in this order. Nothing is trained.

Shape letters: Q queries, G gallery items, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.centralisation import centralised, check_neighbours, nearest_images
from fastreid_clip3d.evaluation.distances import Metric, largest_value
from fastreid_clip3d.evaluation.reranking import RerankedDistances, check_settings

ALPHA = 3.0
_LARGEST = 1e15


@dataclass(frozen=True)
class Refinement:
    """What happens to features and distances before they are ranked; by default nothing.

    Args:
        nfc: (k1, k2) of :func:`centralisation.centralised`, or None.
        expand: images that an expanded feature averages, itself included; 0: none. `times`: how often. `alpha`: the
            power of the similarity that weighs them.
        rerank: (k1, k2, lambda) of ``reranking.RerankedDistances``, or None.

    Raises:
        ClearError: a number out of range.
    """

    nfc: tuple[int, int] | None = None
    expand: int = 0
    times: int = 1
    alpha: float = ALPHA
    rerank: tuple[int, int, float] | None = None

    def __post_init__(self) -> None:
        if self.expand:
            _check_expansion(self.expand, self.times, self.alpha)
        if self.nfc:
            check_neighbours(*self.nfc)
        if self.rerank:
            check_settings(*self.rerank)

    @classmethod
    def of_flags(cls, nfc: bool = False, expand: int = 0, rerank: bool = False) -> Refinement:
        """From the flags of ``clip3d evaluate`` and ``search``, with the papers' numbers."""
        return cls((2, 2) if nfc else None, expand, rerank=(20, 6, 0.3) if rerank else None)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Refinement:
        """From ``TEST.NFC``, ``TEST.AQE`` and ``TEST.RERANK``."""
        nfc, aqe, rerank = cfg.TEST.NFC, cfg.TEST.AQE, cfg.TEST.RERANK
        if aqe.ENABLED:
            _check_expansion(aqe.QE_K, aqe.QE_TIME, aqe.ALPHA)
        return cls(
            (nfc.K1, nfc.K2) if nfc.ENABLED else None,
            aqe.QE_K if aqe.ENABLED else 0,
            aqe.QE_TIME,
            aqe.ALPHA,
            (rerank.K1, rerank.K2, rerank.LAMBDA) if rerank.ENABLED else None,
        )

    def __bool__(self) -> bool:
        return bool(self.nfc or self.expand or self.rerank)

    def __str__(self) -> str:
        """In words, for a table or a log."""
        names = [("NFC", self.nfc), (f"expanded by {self.expand}", self.expand), ("re-ranked", self.rerank)]
        return ", ".join(name for name, wanted in names if wanted)

    def features(self, query: torch.Tensor, gallery: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [Q, D] and [G, D] after NFC and expansion; the same tensors where neither is wanted.

        Raises:
            ClearError: features too large for float32.
        """
        if self.nfc or self.expand:
            _check_range(query, gallery)
        if self.nfc:
            query, gallery = centralised(query, *self.nfc), centralised(gallery, *self.nfc)
        if self.expand:
            everything = torch.cat((query.float(), gallery.float()))
            for _ in range(self.times):
                everything = expanded(everything, everything, self.expand, self.alpha)
            query, gallery = everything[: len(query)], everything[len(query) :]
        return query, gallery

    def distances(
        self, query: torch.Tensor, gallery: torch.Tensor, metric: Metric, max_memory: float
    ) -> np.ndarray | RerankedDistances | None:
        """Re-ranked distances, a matrix [Q, G] where half of `max_memory` (MiB) holds it; None without re-ranking.

        Raises:
            ClearError: features too large for float32.
        """
        if self.rerank is None:
            return None
        if not len(query) or not len(gallery):
            return np.zeros((len(query), len(gallery)), np.float32)
        _check_range(query, gallery)
        source = RerankedDistances(query, gallery, metric, *self.rerank)
        held = 4 * len(query) * len(gallery) <= max_memory * 2**20 / 2
        return source.matrix() if held else source


NOTHING_REFINED = Refinement()


def _check_expansion(count: int, times: int, alpha: float) -> None:
    """Refuses settings of query expansion that are out of range."""
    if count < 1 or times < 1 or not alpha >= 0:
        raise ClearError(
            f"TEST.AQE: QE_K {count} and QE_TIME {times} must be 1 or more, ALPHA {alpha} must be 0 or more."
        )


def _check_range(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """Refuses features whose squares float32 could not hold: they would become infinite, and the scores wrong."""
    largest = max(largest_value(query), largest_value(gallery))
    if not largest <= _LARGEST:
        raise ClearError(
            f"The largest number of the features is {largest:.3g}. NFC, query expansion and re-ranking compute in "
            f"float32 and take numbers up to {_LARGEST:.0e}: divide all features by the same number."
        )


def expanded(features: torch.Tensor, pool: torch.Tensor, count: int, alpha: float = ALPHA) -> torch.Tensor:
    """Average query expansion, as fast-reid's ``aqe``: float32 [N, D].

    ``mean of cos(f_i, f_j)^alpha f_j`` over the `count` images j of the pool that are nearest to i by cosine
    (Chum et al., ICCV 2007; the weights: Radenovic et al., PAMI 2018). fast-reid's pool is query and gallery together,
    so that the first of them is i itself. If alpha is no whole number, a negative cosine counts as 0.

    Args:
        features: [N, D]. pool: [M, D].
    """
    features, pool = features.float(), pool.float()
    count = min(count, len(pool))
    rows, similarities = nearest_images(F.normalize(features, dim=1), F.normalize(pool, dim=1), count)
    if not count:
        return features
    if not float(alpha).is_integer():
        similarities = similarities.clamp_min(0)  # the power of a negative number would be NaN
    total = torch.zeros_like(features)
    for place in range(count):  # one neighbour at a time: [N, count, D] would take many times the features' memory
        total += similarities[:, place, None] ** alpha * pool[torch.from_numpy(rows[:, place])]
    return total / count
