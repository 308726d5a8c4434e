"""Replacements that take effect in a ``with`` block only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from fastreid_clip3d.compat.backbones import Loaded
from fastreid_clip3d.compat.replacement import in_force
from fastreid_clip3d.compat.table import LOADED_NAMES, OPEN_BATCH_SIZE, STUDENT_BUILDER


def backbones_built_by(build: Callable[[Any], nn.Module]) -> contextlib.AbstractContextManager[None]:
    """In this block fast-reid's meta-architectures build their backbone by ``build(cfg)``."""
    return in_force(STUDENT_BUILDER, build)


@contextlib.contextmanager
def watch_loading() -> Iterator[list[Loaded]]:
    """Records every ``load_state_dict`` in this block."""
    records: list[Loaded] = []
    with in_force(LOADED_NAMES, records):
        yield records


def batch_size_left_open() -> contextlib.AbstractContextManager[None]:
    """In this block a traced ShuffleNetV2 takes batches of any size."""
    return in_force(OPEN_BATCH_SIZE)
