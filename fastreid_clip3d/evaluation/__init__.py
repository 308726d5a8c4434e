"""Evaluation: pure functions on ids and distances, and a fast-reid evaluator on top of them.

``protocols`` and ``metrics`` need NumPy only, and every room may import them. ``evaluator`` imports fast-reid, so we
import it at the first use of ``ClothesEvaluator``.
"""

from __future__ import annotations

from typing import Any

from fastreid_clip3d.evaluation.protocols import CC, GENERAL, NOTHING_REMOVED, SC, Protocol

__all__ = ["CC", "GENERAL", "NOTHING_REMOVED", "SC", "ClothesEvaluator", "Protocol"]


def __getattr__(name: str) -> Any:
    if name == "ClothesEvaluator":
        from fastreid_clip3d.evaluation.evaluator import ClothesEvaluator

        return ClothesEvaluator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
