"""Writes all features of a picture collection into one file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.extraction import extract
from fastreid_clip3d.inference.features_writer import FeaturesWriter
from fastreid_clip3d.inference.pictures import Entry


class Summary(NamedTuple):
    """The result of :func:`extract_to_file`.

    Attributes:
        output: the file; None if no entry has a feature.
        entries: number of all entries. written: entries with a feature. reused: those of them from an interrupted run.
        unreadable: (name, reason) of entries without a feature and of frames that were left out of tracklets.
        failed: entries without a feature.
        started_over: the reason why an interrupted run's features were thrown away, else "".
    """

    output: Path | None
    entries: int
    written: int
    reused: int
    failed: int
    unreadable: list[tuple[str, str]]
    started_over: str
    fingerprint: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {
            **self._asdict(),
            "output": str(self.output) if self.output else None,
            "unreadable": [{"path": name, "reason": reason} for name, reason in self.unreadable],
            "seconds": round(self.seconds, 3),
        }


def extract_to_file(
    model: ReIDModel,
    entries: Sequence[Entry],
    output: Path,
    batch_size: int = 64,
    tracklets: bool = False,
    progress: bool = False,
) -> Summary:
    """Extracts features and writes an npz or parquet file; after an interruption the same call continues.

    It keeps the features of an interrupted run for files of unchanged size and time, unless the model has changed. It
    tries unreadable files again.

    Raises:
        ClearError: the output cannot be written.
    """
    start = time.monotonic()
    writer = FeaturesWriter(output, model.fingerprint, model.feature_dim, tracklets)
    remaining = [entry for entry in entries if not writer.is_done(entry)]
    frames: list[tuple[Path, UnreadableImage]] = []
    unreadable: list[tuple[str, str]] = []
    finished = False
    try:
        for entry, outcome in extract(model, remaining, batch_size, progress, unreadable_frames=frames):
            if isinstance(outcome, UnreadableImage):
                unreadable.append((entry.name, str(outcome)))
                writer.forget(entry)
            else:
                writer.add(entry, outcome.numpy())
        finished = True
    finally:
        if not finished:
            writer.close()
    written = writer.finish(entries)
    return Summary(
        output if written else None,
        len(entries),
        written,
        len(entries) - len(remaining),
        len(unreadable),
        unreadable + [(str(path), str(error)) for path, error in frames],
        writer.started_over,
        model.fingerprint,
        time.monotonic() - start,
    )
