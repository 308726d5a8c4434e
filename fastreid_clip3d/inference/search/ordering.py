"""The order of a gallery for one person: from one or several pictures, with NFC, expansion and re-ranking if wanted.

The order of one answer does not depend on the other queries of the search.

Shape letters: n pictures of the person, G gallery pictures, D features.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from fastreid_clip3d.evaluation.centralisation import centralised
from fastreid_clip3d.evaluation.refinement import Refinement, expanded
from fastreid_clip3d.evaluation.reranking import RerankedDistances

OnePerson = Literal["", "mean", "best"]
"""How several query pictures of one person count: "": each for itself; "mean": by the mean of their features; "best":
a gallery picture counts by the most similar of them."""

RERANKED = 200
"""Gallery pictures that are re-ranked for each query, at least; the others stand behind them."""


class Ordered(NamedTuple):
    """Gallery rows, best first, with their cosines to the query as they are without any refinement; the best cosine."""

    rows: list[int]
    similarities: list[float]
    best: float


def query_features(features: np.ndarray, one_person: OnePerson) -> np.ndarray:
    """The features that stand for the person, L2-normalised: float32 [1, D] for "mean", else the [n, D] themselves."""
    if one_person != "mean":
        return features
    return F.normalize(torch.from_numpy(features).mean(0, keepdim=True)).numpy()


class RefinedGallery:
    """A gallery's features after NFC and expansion among themselves.

    Args:
        vectors: float32 [G, D], L2-normalised.
    """

    def __init__(self, vectors: np.ndarray, refinement: Refinement) -> None:
        self.plain = torch.from_numpy(vectors)
        self.refinement, self.moved = refinement, self.plain
        if refinement.nfc:
            self.moved = centralised(self.moved, *refinement.nfc)
        if refinement.expand:
            self.moved = F.normalize(expanded(self.moved, self.moved, refinement.expand, refinement.alpha))

    def order(self, features: np.ndarray, own: set[int], top: int) -> Ordered:
        """The `top` rows for a person.

        Args:
            features: float32 [n, D], L2-normalised; a gallery picture counts by the nearest of them. own: rows of the
                query's own files, which are left out.
        """
        query = torch.from_numpy(features)
        kept = np.setdiff1d(np.arange(len(self.plain)), list(own))
        gallery, plain = self.moved[torch.from_numpy(kept)], self.plain[torch.from_numpy(kept)]
        similarities = (plain @ query.t()).amax(1).clamp(-1, 1) if len(kept) else torch.zeros(0)
        if self.refinement.expand and len(kept):
            # Each picture with its nearest in the gallery; it counts itself with the weight of a similarity of 1.
            others = min(self.refinement.expand - 1, len(kept))
            total = query + others * expanded(query, gallery, others, self.refinement.alpha) if others else query
            query = F.normalize(total)
        distances = 1 - (gallery @ query.t()).amax(1) if len(kept) else torch.zeros(0)
        # Two pictures that NFC moved to one place stand in the order of their plain similarities.
        order = torch.from_numpy(np.lexsort((-similarities.numpy(), distances.numpy().round(6))))
        if self.refinement.rerank:
            chosen = order[: max(RERANKED, top)]
            source = RerankedDistances(query, gallery[chosen], "cosine", *self.refinement.rerank)
            order = chosen[np.argsort(source.rows(np.arange(len(query))).min(0), kind="stable")]
        order = order[:top]
        best = float(similarities.max()) if len(kept) else -1.0
        return Ordered(kept[order.numpy()].tolist(), similarities[order].tolist(), best)
