"""Tables in documents that a command writes: the lines between two comments."""

from __future__ import annotations

from pathlib import Path

from fastreid_clip3d.errors import ClearError


def replace_between(path: Path, text: str, name: str = "table") -> None:
    """Puts `text` between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->`` of a file; makes a file that is missing.

    Raises:
        ClearError: the file has no such lines.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    whole = path.read_text(encoding="utf-8") if path.is_file() else f"{begin}\n{end}\n"
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ClearError(f"--markdown {path}: the file has no lines {begin} and {end} to put the table between.")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
