"""What a run of ``clip3d crops`` has done: its settings, and the boxes that were found in each frame.

``crops.json`` has the settings and ``crops.jsonl`` one line per frame, written before the crops of this frame. The
crops follow from the boxes, so a run that goes on cuts only the crops that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastreid_clip3d.common.resumable import Journal, OtherWork, begin
from fastreid_clip3d.inference.crops.box_files import Box

SETTINGS_FILE, JOURNAL_FILE = "crops.json", "crops.jsonl"


class FoundBoxes:
    """The boxes of a folder's frames, those of earlier runs included.

    Args:
        folder: of the crops. work: what decides them, as json takes it.

    Raises:
        ClearError: the folder holds files of somebody else, or crops of other work; the differences are named.
    """

    def __init__(self, folder: Path, work: Mapping[str, Any]) -> None:
        _begin(folder, work)
        self._found: dict[tuple[str, int], list[Box]] = {}
        self._journal = Journal(folder / JOURNAL_FILE, self._take)

    def _take(self, line: str) -> bool:
        try:
            source, frame, boxes = json.loads(line)
            self._found[source, frame] = [Box(*box) for box in boxes]
        except (ValueError, TypeError):
            return False
        return True

    def get(self, source: str, frame: int) -> list[Box] | None:
        """The boxes that were found in a frame; None where it was not reached yet."""
        return self._found.get((source, frame))

    def add(self, source: str, frame: int, boxes: list[Box]) -> None:
        """Keeps the boxes of a frame."""
        self._journal.append(json.dumps([source, frame, boxes]))

    def close(self) -> None:
        """Closes the file."""
        self._journal.close()


def _begin(folder: Path, work: Mapping[str, Any]) -> None:
    try:
        begin(folder, SETTINGS_FILE, work, own=(JOURNAL_FILE,))
    except OtherWork:
        journal = folder / JOURNAL_FILE
        if journal.exists() and journal.stat().st_size:
            raise
        (folder / SETTINGS_FILE).unlink()  # no frame was reached, for example of a video that cannot be read
        begin(folder, SETTINGS_FILE, work, own=(JOURNAL_FILE,))
