"""How good a teacher is on people whom it has not seen: right labels, and g as a ReID feature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP

from fastreid_clip3d.teacher.labels import choose_phrases, phrase_scores
from fastreid_clip3d.vocabulary import PHRASE_PAIRS
from tools.assets.teacher.captions import WORDINGS, single_phrase_sentences
from tools.assets.teacher.pictures import LabelledPictures
from tools.assets.teacher.settings import TrainingSettings


@dataclass
class Report:
    """Accuracy of the trained model's labels on people whom it has not seen, by kind of picture and for "all".

    All arrays have 16 numbers in 0..1. majority: accuracy of always answering with the more frequent phrase. certain:
    accuracy on the half of the labels that is farthest from the threshold.
    """

    accuracy: dict[str, list[float]] = field(default_factory=dict)
    certain: dict[str, list[float]] = field(default_factory=dict)
    majority: dict[str, list[float]] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    reid: dict[str, tuple[float, float]] = field(default_factory=dict)
    """g as a ReID feature where nothing but the body stays: mAP and chance, see :func:`score_reid`."""

    def mean(self, kind: str = "all") -> tuple[float, float]:
        """Means of accuracy and of majority over the pairs."""
        return float(np.mean(self.accuracy[kind])), float(np.mean(self.majority[kind]))

    def table(self) -> str:
        """A table in plain text with a line per pair: accuracy, accuracy of certain labels, share of the majority."""
        kinds = list(self.accuracy)
        lines = [" " * 36 + "".join(f"  {kind:<24}" for kind in kinds)]
        lines.append("pair".ljust(36) + "".join(f"  {'right':>6}{'certain':>9}{'common':>8} " for _ in kinds))
        for m, pair in enumerate(PHRASE_PAIRS):
            lines.append(
                f"{pair.phrase_1} / {pair.phrase_2}".ljust(36) + self._row(kinds, lambda values, m=m: values[m])
            )
        lines.append("mean".ljust(36) + self._row(kinds, np.mean))
        for kind, (score, chance) in self.reid.items():
            lines.append(
                f"g as a ReID feature, {kind}, other clothes, skin and hair: mAP {score:.3f}, chance {chance:.3f}"
            )
        return "\n".join(lines)

    def _row(self, kinds: list[str], pick: Callable[[list[float]], float]) -> str:
        return "".join(
            f"  {pick(self.accuracy[k]):>6.3f}{pick(self.certain[k]):>9.3f}{pick(self.majority[k]):>8.3f} "
            for k in kinds
        )


@torch.no_grad()
def evaluate(model: CLIP, settings: TrainingSettings, pictures: LabelledPictures, kinds: tuple[str, ...]) -> Report:
    """Accuracy of the labels by pair, for each kind of picture and for all."""
    device = model.logit_scale.device
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (settings.mean, settings.std))
    tokenizer = open_clip.SimpleTokenizer(context_length=settings.context_length)
    model.eval()
    table = model.encode_text(tokenizer(single_phrase_sentences(WORDINGS[0])).to(device))
    choices, embeddings = [], []
    for start in range(0, len(pictures.images), 128):
        images = torch.from_numpy(pictures.images[start : start + 128]).permute(0, 3, 1, 2).float() / 255
        features = model.encode_image(((images - mean) / std).to(device))
        choices.append(choose_phrases(phrase_scores(features, table)).cpu().numpy())
        embeddings.append(F.normalize(features, dim=-1).cpu().numpy())
    right = np.concatenate(choices) == pictures.phrase_choices
    margin = np.abs(pictures.targets - 0.5)
    report = Report()
    for index, kind in enumerate(("all", *kinds)):
        rows = np.ones(len(right), bool) if kind == "all" else pictures.kinds == index - 1
        if not rows.any():
            continue
        sure = margin[rows] >= np.median(margin[rows], axis=0, keepdims=True)
        share = pictures.phrase_choices[rows].mean(0)
        report.accuracy[kind] = right[rows].mean(0).tolist()
        report.certain[kind] = (right[rows] * sure).sum(0).__truediv__(sure.sum(0)).tolist()
        report.majority[kind] = np.maximum(share, 1 - share).tolist()
        report.images[kind] = int(rows.sum())
        rows &= pictures.shape_only
        if kind != "all" and rows.any():
            report.reid[kind] = score_reid(np.concatenate(embeddings)[rows], pictures.pids[rows])
    return report


def score_reid(embeddings: np.ndarray, pids: np.ndarray) -> tuple[float, float]:
    """mAP of finding each person's other picture among those of all people, and what chance scores.

    Args:
        embeddings: [N, d], of length 1.
        pids: [N], each twice.
    """
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -np.inf)
    match = pids[:, None] == pids[None]
    np.fill_diagonal(match, False)
    found = similarity[match]  # one per row
    ranks = (similarity > found[:, None]).sum(1) + 1
    others = np.arange(1, len(pids))
    return float((1.0 / ranks).mean()), float((1.0 / others).mean())
