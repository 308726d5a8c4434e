"""The teacher's losses.

A label decides between a phrase and its opposite, and :func:`pair_loss` trains exactly this: for each image and pair,
the two prompts compete for the image's embedding (binary cross-entropy on the difference of their cosines, divided by a
temperature). :func:`caption_loss` contrasts captions of a few phrases within the batch. Every image that fits a caption
is its positive: people share most phrases, so a loss with one positive per row would teach nothing.

Shape letters: B images in a batch, d embedding width, 16 pairs, 32 phrases.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastreid_clip3d.teacher.labels import phrase_scores
from fastreid_clip3d.vocabulary import NUM_PAIRS


def pair_loss(
    features: torch.Tensor, phrase_table: torch.Tensor, scale: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Each phrase against its opposite: mean binary cross-entropy over images and pairs.

    Args:
        features: [B, d]; phrase_table: [32, d]; both normalised here.
        scale: inverse temperature, scalar.
        targets: [B, 16], probability of phrase 1.
    """
    scores = phrase_scores(features, phrase_table).unflatten(-1, (NUM_PAIRS, 2))
    return F.binary_cross_entropy_with_logits(scale * (scores[..., 0] - scores[..., 1]), targets)


def caption_loss(
    features: torch.Tensor, captions: torch.Tensor, scale: torch.Tensor, fits: torch.Tensor
) -> torch.Tensor:
    """Contrast of images and captions in a batch, both ways, with every fitting partner a positive.

    Args:
        features, captions: [B, d]; scale: inverse temperature; fits: bool [B, B], image i satisfies caption j.
    """
    logits = scale * F.normalize(features, dim=-1) @ F.normalize(captions, dim=-1).T
    positives = fits.float()
    to_captions = -(positives / positives.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    to_images = -(positives / positives.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (to_captions + to_images) / 2


def relation_loss(features: torch.Tensor, shapes: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of two cosines, of the images' embeddings and of their bodies, over pairs of images.

    Args:
        features: [B, d], B at least 2; shapes: [B, 26], in standard deviations.
    """
    found, wanted = (F.normalize(value, dim=-1) @ F.normalize(value, dim=-1).T for value in (features, shapes))
    others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    return ((found - wanted).square() * others).sum() / others.sum().clamp(min=1)
