"""Makes fast-reid, as released, run on today's Python, NumPy and torch, with or without a GPU.

``table.py`` lists every replacement: what, the probe that shows whether it is needed here, why, and when it can go.
Nothing else in the package replaces a function of another library. The other modules hold the replacements, their
probes, and a few helpers. None of them imports fast-reid at its top, since :func:`apply` makes that import possible.
"""

from __future__ import annotations

import contextlib
import warnings

from fastreid_clip3d.compat import events, locate
from fastreid_clip3d.compat.replacement import in_force
from fastreid_clip3d.compat.table import TABLE


def apply() -> None:
    """Finds fast-reid (the checkout that ``FASTREID_HOME`` names, else the installed package) and applies the table.

    A second call changes nothing: after the first one the probes find nothing to replace.
    """
    locate.make_importable()
    import_fastreid()
    for row in TABLE:
        if row.when == "always":
            row.apply()
    events.silence_harmless_warnings()


def import_fastreid() -> None:
    """Imports fast-reid with the names that it expects. Its warnings (missing Cython, invalid escapes) stay silent."""
    with contextlib.ExitStack() as stack:
        for row in TABLE:
            if row.when == "while fast-reid is imported":
                stack.enter_context(in_force(row))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        import fastreid.data.build
        import fastreid.engine
        import fastreid.evaluation
        import fastreid.evaluation.rank  # noqa: F401  (its import warns about Cython)
