"""Features of a dozen people on a plane, coloured by person and, beside it, by clothes.

N: items of the people shown. D: feature dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from fastreid_clip3d.common.figures import save_figure
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.ranking import LabelledFeatures

Method = Literal["tsne", "pca"]
METHODS = get_args(Method)
MARKERS = "osD^vP*Xh"


@dataclass(frozen=True)
class Embedding:
    """Items on a plane, and how often neighbours in all D dimensions (by cosine) show the same person or clothes.

    Attributes:
        points: float64 [N, 2]. pids, clothes_ids: int64 [N]; clothes_ids is None where clothes are not known.
        same_person, same_clothes: share, 0..1, of items that have the same person or clothes as their nearest item.
        other_clothes: share of items that have the same person as the nearest item in other clothes. It and
            `same_clothes` are None where clothes are not known.
    """

    points: np.ndarray
    pids: np.ndarray
    clothes_ids: np.ndarray | None
    same_person: float
    same_clothes: float | None
    other_clothes: float | None
    method: Method

    def caption(self) -> str:
        """One line with the shares."""
        text = f"Nearest neighbour shows the same person: {self.same_person:.0%}"
        if self.same_clothes is not None:
            text += f", the same clothes: {self.same_clothes:.0%}"
        if self.other_clothes is not None:
            text += f"; nearest in other clothes shows the same person: {self.other_clothes:.0%}"
        return text


def choose_people(pids: np.ndarray, clothes_ids: np.ndarray | None, count: int, seed: int = 0) -> np.ndarray:
    """Up to `count` people drawn at random, sorted; people with two outfits or more, where there are any."""
    people = np.unique(pids)
    if clothes_ids is not None:
        changing = np.array(
            [person for person in people if len(np.unique(clothes_ids[pids == person])) > 1], pids.dtype
        )
        people = changing if len(changing) else people
    drawn = np.random.default_rng(seed).permutation(people)[:count]
    return np.sort(drawn)


def embed(
    query: LabelledFeatures, gallery: LabelledFeatures, people: int = 12, method: Method = "tsne", seed: int = 0
) -> Embedding:
    """Projects the items of some people of a test set to two dimensions.

    Args:
        people: number of people.
        method: "tsne" keeps neighbours, and distances across the plane mean little; "pca" takes the two widest
            directions.
        seed: of the choice of people and of t-SNE. The same arguments give the same points.

    Raises:
        ClearError: an unknown method, or fewer than three items to show.
    """
    if method not in METHODS:
        raise ClearError(f"--method {method}: known are {' and '.join(METHODS)}.")
    pids = np.concatenate([query.pids, gallery.pids])
    known = query.clothes_ids is not None and gallery.clothes_ids is not None
    clothes = np.concatenate([query.clothes_ids, gallery.clothes_ids]) if known else None
    rows = np.flatnonzero(np.isin(pids, choose_people(pids, clothes, people, seed)))
    if len(rows) < 3:
        raise ClearError(f"An embedding needs three items or more; these people have {len(rows)}.")
    features = np.concatenate([query.features.numpy(), gallery.features.numpy()])[rows].astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    pids, clothes = pids[rows], None if clothes is None else clothes[rows]
    same_person, same_clothes, other_clothes = neighbour_shares(features, pids, clothes)
    return Embedding(project(features, method, seed), pids, clothes, same_person, same_clothes, other_clothes, method)


def project(features: np.ndarray, method: Method, seed: int = 0) -> np.ndarray:
    """Unit features [N, D] as points [N, 2]."""
    if method == "pca":
        return PCA(2, svd_solver="full").fit_transform(features)
    perplexity = min(15.0, (len(features) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(features).astype(float)


def neighbour_shares(
    features: np.ndarray, pids: np.ndarray, clothes_ids: np.ndarray | None
) -> tuple[float, float | None, float | None]:
    """The three shares of :class:`Embedding` for unit features [N, D]."""
    similarity = features @ features.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = similarity.argmax(1)
    same_person = float((pids[nearest] == pids).mean())
    if clothes_ids is None:
        return same_person, None, None
    wearing_same = (clothes_ids[:, None] == clothes_ids[None]) & (pids[:, None] == pids[None])
    same_clothes = float(wearing_same[np.arange(len(pids)), nearest].mean())
    apart = np.where(wearing_same, -np.inf, similarity)
    comparable = np.isfinite(apart).any(1)
    other = float((pids[apart.argmax(1)] == pids)[comparable].mean()) if comparable.any() else None
    return same_person, same_clothes, other


def embedding_sheet(embedding: Embedding, output: str | Path, title: str = "") -> Path:
    """Draws the points twice: coloured by person, and by clothes; returns `output`."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    sides = [("person", embedding.pids)]
    if embedding.clothes_ids is not None:
        # A dataset numbers its outfits per person or over everyone, so an outfit is a pair, [N, 2].
        sides.append(("clothes", np.stack([embedding.pids, embedding.clothes_ids], 1)))
    figure = Figure(figsize=(4.6 * len(sides), 4.9), layout="constrained", dpi=110)
    for place, (name, ids) in enumerate(sides):
        axes = figure.add_subplot(1, len(sides), place + 1)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"by {name}: {len(np.unique(ids, axis=0))}", fontsize=10)
        for number, one in enumerate(np.unique(ids, axis=0)):
            shown = (ids == one) if ids.ndim == 1 else (ids == one).all(1)
            # Neighbouring numbers get colours far apart; outfits differ in colour and shape.
            colour = colormaps["hsv"](number * 0.618033988749895 % 1.0)
            axes.scatter(
                embedding.points[shown, 0],
                embedding.points[shown, 1],
                s=26,
                color=colour,
                edgecolor="black",
                linewidth=0.35,
                alpha=0.9,
                marker="o" if name == "person" else MARKERS[number % len(MARKERS)],
            )
    heading = f"{title + ': ' if title else ''}{len(np.unique(embedding.pids))} people, {len(embedding.pids)} images, "
    figure.suptitle(heading + {"tsne": "t-SNE", "pca": "PCA"}[embedding.method], fontsize=11, parse_math=False)
    figure.supxlabel(embedding.caption().replace("; ", "\n"), fontsize=8.5, color="0.25")
    return save_figure(figure, output)
