"""Writing matplotlib figures, without importing matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastreid_clip3d.common.files import check_writable, write_atomically

FIGURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf")


def save_figure(figure: Any, path: str | Path, dpi: float | str = "figure") -> Path:
    """Writes a ``matplotlib.figure.Figure``, whole or not at all, in the format of the path's ending; returns the path.

    Raises:
        ClearError: an ending that is not in :data:`FIGURE_ENDINGS`, or the file cannot be written.
    """
    path = check_writable(path, FIGURE_ENDINGS)
    write_atomically(path, lambda stream: figure.savefig(stream, format=path.suffix[1:].lower(), dpi=dpi))
    return path
