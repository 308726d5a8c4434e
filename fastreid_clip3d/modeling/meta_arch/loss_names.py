"""The names that ``MODEL.LOSSES.NAME`` understands."""

from __future__ import annotations

import difflib
from typing import Iterable

from fastreid_clip3d.errors import ClearError

OT, GLOBAL_DISTILL, BODY_SHAPE, CLOTHES = "OTLoss", "GlobalDistillLoss", "BodyShapeLoss", "ClothesAdversarialLoss"
OURS = (OT, GLOBAL_DISTILL, BODY_SHAPE, CLOTHES)
FASTREID = ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface")


def check_loss_names(names: Iterable[str], known: Iterable[str] = FASTREID + OURS) -> None:
    """Refuses names that fast-reid would pass over in silence.

    Raises:
        ClearError: names the unknown one and the nearest known one.
    """
    known = list(known)
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ClearError(
                f"MODEL.LOSSES.NAME holds the unknown loss {name!r}. Did you mean {nearest!r}? Known: {', '.join(known)}."
            )
