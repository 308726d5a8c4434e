"""The names that ``MODEL.LOSSES.NAME`` understands."""

from __future__ import annotations

from collections.abc import Iterable

from fastreid_clip3d.common.near_names import did_you_mean
from fastreid_clip3d.errors import ClearError

OT, GLOBAL_DISTILL, BODY_SHAPE, CLOTHES = "OTLoss", "GlobalDistillLoss", "BodyShapeLoss", "ClothesAdversarialLoss"
OURS = (OT, GLOBAL_DISTILL, BODY_SHAPE, CLOTHES)
PAIRWISE = ("TripletLoss", "CircleLoss", "Cosface")
"""Those of fast-reid that compare images of one person with each other."""
FASTREID = ("CrossEntropyLoss", *PAIRWISE)


def check_loss_names(names: Iterable[str], known: Iterable[str] = FASTREID + OURS) -> None:
    """Refuses names that fast-reid would ignore without a message.

    Raises:
        ClearError: names the unknown loss and the nearest known one.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise ClearError(f"MODEL.LOSSES.NAME holds the unknown loss {name!r}. {did_you_mean(name, known)}")
