"""A training batch: what the loader gives to the meta-architecture.

Shape letters: R real images, S synthetic images, H x W size, d teacher width, h x w teacher input.
"""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict, total=False):
    """Real images with what the teacher needs, and synthetic bodies with their true shapes.

    A key is absent where no loss of the config needs it.
    """

    images: Tensor
    """float32 [R, 3, H, W], RGB, 0..255, before normalisation."""
    targets: Tensor
    """int64 [R], class of the person, 0 .. classes - 1; -1 in batches that only refresh batch-norm statistics."""
    camids: Tensor
    """int64 [R], class of the camera."""
    clothes_ids: Tensor
    """int64 [R], class of the outfit; -1 where the clothes are not labelled."""
    img_paths: list[str]
    """R paths."""
    teacher_images: Tensor
    """uint8 [R, 3, h, w], the teacher's input (online teacher)."""
    teacher_features: Tensor
    """g, float32 [R, d] (cached teacher)."""
    phrase_choices: Tensor
    """int64 [R, 16], 0 or 1: which phrase of each pair the teacher chose (cached teacher)."""
    synthetic_images: Tensor
    """float32 [S, 3, H, W], RGB, 0..255."""
    synthetic_betas: Tensor
    """float32 [S, 10], true shape coefficients of the gendered body."""
    synthetic_gender: Tensor
    """int64 [S], 0 female, 1 male."""
    synthetic_phrase_choices: Tensor
    """int64 [S, 16], true phrases, from the body's measurements."""
