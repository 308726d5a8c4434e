"""Makes fast-reid, as released, run on today's Python, NumPy and torch, with or without a GPU.

Each module here is one small patch, applied only where a probe shows that it is needed, and harmless when applied
twice. Nothing else in the package works around fast-reid.
"""

from __future__ import annotations

from . import backbones, distributed, evaluation, events, imports, launch, loader, locate, optimizer, pixels

_applied = False


def apply() -> None:
    """Finds fast-reid (a git checkout named by ``FASTREID_HOME``, else the installed package) and patches it, once."""
    global _applied
    if _applied:
        return
    locate.make_importable()
    with imports.names_fastreid_expects():
        import fastreid.data.build
        import fastreid.engine
        import fastreid.evaluation
        import fastreid.evaluation.rank  # noqa: F401  (its import warns about Cython)
    for patch in (loader, launch, distributed, optimizer, evaluation, pixels, events, backbones):
        patch.apply()
    _applied = True
