"""Any texts through the teacher's text tower, which :class:`Teacher` itself no longer has."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastreid_clip3d.teacher.clip import create_open_clip, encode_prompts
from fastreid_clip3d.teacher.sources import find_weights


def encode_texts(name: str, pretrained: str, sentences: Sequence[str]) -> torch.Tensor:
    """Raw text embeddings of the teacher of this name, float32 [len(sentences), d] on the CPU.

    Args:
        name, pretrained: as for ``load_teacher`` (``MODEL.TEACHER.NAME`` and ``PRETRAINED``).

    Raises:
        ClearError: unknown name or tag, missing or unreadable weights, or no network for a download.
    """
    source = find_weights(name, pretrained)
    return encode_prompts(create_open_clip(source, name, pretrained), source.model_name, list(sentences))
