"""What the teacher gives to a training: its phrase table once, and g and the labels of every real image.

The answers come from the teacher itself (online) or from a cache (cached). The losses see no difference.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
from pathlib import Path
from typing import Any

import torch

from fastreid_clip3d.common.batch import Batch
from fastreid_clip3d.common.dataset_root import below_dataset_root
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher.cache import TeacherCache
from fastreid_clip3d.teacher.clip import Fingerprint, Teacher, effective_precision, load_teacher
from fastreid_clip3d.teacher.labels import choose_phrases, phrase_scores

MODES = ("online", "cached", "auto")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Guidance:
    """Either `teacher` (online) or `cache` (cached) is set.

    Attributes:
        phrase_table: raw text embeddings, float32 [32, d].
    """

    phrase_table: torch.Tensor
    teacher: Teacher | None = None
    cache: TeacherCache | None = None

    def answers_for(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """g, float32 [R, d], and phrase_choices, int64 [R, 16], of a batch's real images."""
        if self.teacher is None:
            return batch["teacher_features"], batch["phrase_choices"]
        features = self.teacher.encode_images(batch["teacher_images"])
        return features, choose_phrases(phrase_scores(features, self.teacher.phrase_table))


def cache_folder(cfg: Any) -> Path:
    """Folder of the answers of this teacher on these training sets: a teacher has one cache per ``DATASETS.NAMES``.

    It lies below ``MODEL.TEACHER.CACHE_DIR``, or below ``teacher_cache`` beside the datasets.
    """
    keys = cfg.MODEL.TEACHER
    parent = Path(keys.CACHE_DIR) if keys.CACHE_DIR else below_dataset_root("teacher_cache")
    teacher = f"{keys.NAME} {keys.PRETRAINED} {keys.RESIZE}"
    datasets = "+".join(sorted(cfg.DATASETS.NAMES)) + ("+all" if cfg.DATASETS.COMBINEALL else "")
    return parent / _as_file_name(teacher) / _as_file_name(datasets)


def _as_file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+]+", "_", text).strip("_")


def teacher_from_config(cfg: Any) -> Teacher:
    """The teacher of ``MODEL.TEACHER``, loaded once a process."""
    keys = cfg.MODEL.TEACHER
    return _loaded_teacher(keys.NAME, keys.PRETRAINED, keys.RESIZE, cfg.MODEL.DEVICE, keys.PRECISION)


def guidance_from_config(cfg: Any) -> Guidance:
    """Online or cached guidance, as ``MODEL.TEACHER.MODE`` says; the same object for the same keys.

    Raises:
        ClearError: an unknown mode, no teacher, or (cached) no usable cache.
    """
    keys = cfg.MODEL.TEACHER
    if keys.MODE not in MODES:
        raise ClearError(f"MODEL.TEACHER.MODE is {keys.MODE!r}; it must be one of {', '.join(MODES)}.")
    return _guidance(
        keys.MODE, str(cache_folder(cfg)), keys.NAME, keys.PRETRAINED, keys.RESIZE, cfg.MODEL.DEVICE, keys.PRECISION
    )


@functools.lru_cache(maxsize=1)
def _loaded_teacher(name: str, pretrained: str, resize: str, device: str, precision: str) -> Teacher:
    # Building a model draws random numbers even when weights replace them; the student's must not depend on that.
    with torch.random.fork_rng(devices=[]):
        return load_teacher(name, pretrained, resize, device, precision)


@functools.lru_cache(maxsize=1)
def _guidance(mode: str, folder: str, name: str, pretrained: str, resize: str, device: str, precision: str) -> Guidance:
    if mode == "online" or (mode == "auto" and not os.path.isdir(folder)):
        teacher = _loaded_teacher(name, pretrained, resize, device, precision)
        return Guidance(teacher.phrase_table, teacher=teacher)
    try:
        cache = TeacherCache(folder)
        cache.require(_fingerprint_if_at_hand(name, pretrained, resize, device, precision), paths=())
    except ClearError as error:
        if mode == "cached":
            raise
        logger.warning(f"{error} MODEL.TEACHER.MODE is auto: the teacher runs in every step instead.")
        return _guidance("online", folder, name, pretrained, resize, device, precision)
    logger.info(f"The teacher's answers are read from {folder} ({len(cache)} images).")
    return Guidance(cache.phrase_table, cache=cache)


def _fingerprint_if_at_hand(name: str, pretrained: str, resize: str, device: str, precision: str) -> Fingerprint | None:
    """The teacher's fingerprint; None where only its cache came to this machine and not its weights.

    The teacher is loaded on the CPU and dropped again: with a cache, no step needs it.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            fingerprint = load_teacher(name, pretrained, resize, "cpu", precision).fingerprint
        return dataclasses.replace(fingerprint, precision=effective_precision(precision, device))
    except ClearError as error:
        logger.warning(f"The cache cannot be compared with the teacher's weights: {error}")
        return None
