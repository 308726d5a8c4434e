"""Scores of body-shape phrases, in the space that the student's local features share with the teacher's texts.

Local distillation (paper, Eq. 4) draws an image's patches f_n towards Psi(h_m) of the phrases that fit it, by the cost
1 - cos(f_n, Psi(h_m)). The score of a phrase p, whose opposite is o, is the margin between their costs, averaged over
the patches (the marginal u = 1/N of the transport)::

    score(p) = 1/N sum_n cos(f_n, Psi(h_p)) - 1/N sum_n cos(f_n, Psi(h_o))

That is the dot product of the mean of the normalised patches with Psi(h_p) - Psi(h_o). So one vector [d'] per image
answers every phrase and free text. For free text, which has no opposite, o is the mean over the 32 phrases. For several
phrases the score is the mean of their scores.

B: images. N: patches. d: width of the text space. d': width of the student. K: phrases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.common.phrases import find_phrase, require_phrase
from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.extraction import extract
from fastreid_clip3d.inference.model import find_run_files
from fastreid_clip3d.inference.pictures import Entry
from fastreid_clip3d.modeling.losses import OTLoss
from fastreid_clip3d.modeling.weights import read_weights
from fastreid_clip3d.teacher.texts import encode_texts
from fastreid_clip3d.vocabulary import PHRASES, PROMPT_TEMPLATE, prompts

OPPOSITE = tuple(row ^ 1 for row in range(len(PHRASES)))
"""Row of each phrase's opposite."""
_VERBS = ("is", "has", "wears")
_TEACHER_TOLERANCE = 1e-2  # of a cosine; float16 and other kernels move it by less


def sentence_of(text: str) -> str:
    """Free text as the teacher's sentence: "A photo of a person; the person is TEXT."."""
    words = text.strip().rstrip(".")
    verb, _, rest = words.partition(" ")
    return (
        PROMPT_TEMPLATE.format(verb=verb, phrase=rest)
        if verb in _VERBS and rest
        else PROMPT_TEMPLATE.format(verb="is", phrase=words)
    )


def require_phrases(model: ReIDModel, run: str | Path) -> Tensor:
    """Psi of the 32 phrases, normalised, float32 [32, d'].

    Raises:
        ClearError: the model has no aligned text space, or gives no local features.
    """
    table = getattr(model, "phrase_features", None)
    if table is None or not hasattr(model, "local_features"):
        raise ClearError(
            f"{run}: this student has no text space. Give the run folder or the checkpoint of a training with OTLoss "
            "in MODEL.LOSSES.NAME."
        )
    return table


def phrase_directions(
    model: ReIDModel, run: str | Path, phrases: Sequence[str], free_text: bool = False
) -> tuple[list[str], np.ndarray]:
    """The vectors whose products with the patch means are the scores.

    Args:
        run: the run folder or checkpoint of `model`. phrases: of the vocabulary, or with `free_text` any text.

    Returns:
        The phrases in the vocabulary's words (free text as sentences), and float32 [K, d'].

    Raises:
        ClearError: an unknown phrase (the message names the nearest); free text without the teacher of the training.
    """
    table = require_phrases(model, run)
    rows = [find_phrase(phrase) for phrase in phrases]
    unknown = [phrase for phrase, row in zip(phrases, rows) if row is None]
    if any(not phrase.strip() for phrase in phrases):
        raise ClearError("--phrases: a phrase is empty")
    if unknown and not free_text:
        require_phrase(unknown[0], "Other texts need the teacher and --free-text.")
    texts = dict(zip(unknown, _free_directions(run, table, unknown))) if unknown else {}
    directions = [
        texts[phrase] if row is None else table[row] - table[OPPOSITE[row]] for phrase, row in zip(phrases, rows)
    ]
    shown = [sentence_of(phrase) if row is None else PHRASES[row] for phrase, row in zip(phrases, rows)]
    return shown, torch.stack(directions).numpy().astype(np.float32)


def _free_directions(run: str | Path, table: Tensor, texts: list[str]) -> Tensor:
    """Psi of free texts less the mean of the 32 phrases, [len(texts), d']."""
    checkpoint, config = find_run_files(run)
    weights = read_weights(checkpoint)
    loss = OTLoss.from_weights(weights)
    text_dim = loss.projection[0].in_features
    keys = load_config(str(config), import_modules=False).MODEL.TEACHER
    try:
        embeddings = encode_texts(keys.NAME, keys.PRETRAINED, [*prompts(), *map(sentence_of, texts)])
    except ClearError as error:
        raise ClearError(
            f"Free text needs the teacher that {config} names, and it cannot be loaded: {error}"
        ) from error
    if embeddings.shape[1] != text_dim:
        raise ClearError(f"{config} names another teacher than the one that {checkpoint} was trained with.")
    with torch.no_grad():
        projected = loss.project(embeddings)
    if ((projected[: len(table)] * table).sum(1) < 1 - _TEACHER_TOLERANCE).any():
        raise ClearError(f"{config} names another teacher than the one that {checkpoint} was trained with.")
    return projected[len(table) :] - table.mean(0)


class _PatchMeans:
    """An encoder for ``extract`` that gives the mean of a student's normalised patches."""

    def __init__(self, model: Any) -> None:
        self.model, self.size, self.recipe = model, model.size, model.recipe

    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, h, w] -> float32 [B, d'], norms up to 1."""
        patches = self.model.local_features(pixels)
        norms = torch.linalg.vector_norm(patches, dim=2, keepdim=True).clamp_min(1e-12)
        return (patches / norms).mean(1)


def patch_means(
    model: ReIDModel, entries: Sequence[Entry], batch_size: int = 64, progress: bool = False
) -> Iterator[tuple[Entry, np.ndarray | UnreadableImage]]:
    """The mean normalised patch of each entry, float32 [d'], in order; a tracklet's is the mean over its frames.

    Frames that cannot be read are left out; an entry without any readable frame has the first frame's error.
    """
    single = [Entry(entry.name, (frame,)) for entry in entries for frame in entry.frames]
    outcomes = extract(_PatchMeans(model), single, batch_size, progress)
    for entry in entries:
        found = [next(outcomes)[1] for _ in entry.frames]
        vectors = [vector.numpy() for vector in found if isinstance(vector, Tensor)]
        if vectors:
            yield entry, np.mean(vectors, axis=0)
        else:
            yield entry, next(outcome for outcome in found if isinstance(outcome, UnreadableImage))
