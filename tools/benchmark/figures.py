"""The figures of a benchmark as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fastreid_clip3d.common.files import write_atomically


def write_figures(path: str, figures: Mapping[str, object]) -> None:
    """Writes the file of ``--json`` and makes its folder; without a path it writes nothing."""
    if path:
        write_atomically(path, (json.dumps(figures, indent=2) + "\n").encode())
