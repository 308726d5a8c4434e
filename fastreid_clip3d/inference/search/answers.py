"""What a search found, for programs (json) and for readers (a table on the screen)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastreid_clip3d.common.names import printable
from fastreid_clip3d.evaluation.calibration import Comparison


@dataclass(frozen=True)
class Hit:
    """One entry of the gallery.

    Args:
        name: as the gallery's listing has it. `picture`: a file to show, of a tracklet its middle frame.
        similarity: cosine with the query, or the score of the phrases (see ``phrases``).
        comparison: by the calibration; None without one, and for phrases.
    """

    name: str
    picture: Path
    similarity: float
    comparison: Comparison | None = None

    @property
    def verdict(self) -> str:
        """Whether query and hit show the same person, with the rate of errors, in words; "" without a calibration."""
        return self.comparison.sentence.partition(": ")[2] if self.comparison else ""


@dataclass(frozen=True)
class Answer:
    """The best entries for one query, best first.

    Args:
        query: a heading. `picture`: to show; None for phrases. `query_names`: the pictures of the query.
        nobody: whether the person is more likely not in the gallery; None without a calibration. `nobody_sentence`: the
            same for a reader.
    """

    query: str
    picture: Path | None
    hits: tuple[Hit, ...]
    query_names: tuple[str, ...] = ()
    nobody: bool | None = None
    nobody_sentence: str = ""


@dataclass(frozen=True)
class Answers:
    """A whole search.

    Args:
        kind: the hits' numbers are cosine similarities to a picture, or scores of phrases.
        unreadable: (name, reason) of queries and gallery entries that cannot be read.
        note: whether the calibration holds for this gallery; "" where it does, or where there is none.
    """

    answers: tuple[Answer, ...]
    kind: Literal["similarity", "score"]
    gallery: str
    gallery_size: int
    unreadable: tuple[tuple[str, str], ...] = ()
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For json. A byte of a name that is not UTF-8 stays a surrogate, which ``os.fsencode`` turns back."""
        return {
            "gallery": self.gallery,
            "gallery_size": self.gallery_size,
            "calibration_note": self.note,
            "answers": [
                {
                    "query": answer.query,
                    "query_pictures": list(answer.query_names),
                    "likely_nobody": answer.nobody,
                    "hits": [self._hit(rank, hit) for rank, hit in enumerate(answer.hits, start=1)],
                }
                for answer in self.answers
            ],
            "unreadable": [{"name": name, "reason": reason} for name, reason in self.unreadable],
        }

    def _hit(self, rank: int, hit: Hit) -> dict[str, Any]:
        values: dict[str, Any] = {"rank": rank, "name": hit.name, self.kind: hit.similarity}
        if hit.comparison:
            values |= {"same_person": hit.comparison.same_person, "by_protocol": hit.comparison.by_protocol}
        return values


def print_answers(found: Answers, console: Console) -> None:
    """Prints one table per query, and the note on the calibration."""
    has_verdicts = any(hit.verdict for answer in found.answers for hit in answer.hits)
    for answer in found.answers:
        console.print(Text(printable(answer.query), style="bold"), soft_wrap=True)
        table = Table()
        table.add_column("rank", justify="right")
        table.add_column(found.kind, justify="right")
        for heading in ("picture", "verdict")[: 1 + has_verdicts]:
            table.add_column(heading, overflow="fold")
        for rank, hit in enumerate(answer.hits, start=1):
            number = f"{hit.similarity:.4f}" if found.kind == "similarity" else f"{hit.similarity:.3g}"
            name = Text(printable(os.path.relpath(hit.name, found.gallery)))
            table.add_row(str(rank), number, name, *([Text(hit.verdict)] if has_verdicts else []))
        console.print(table)
        if answer.nobody:
            console.print(Text(printable(answer.nobody_sentence)), soft_wrap=True)
    if found.note:
        console.print(Text(found.note), soft_wrap=True)


def print_unreadable(unreadable: Sequence[tuple[str, str]], console: Console, most: int = 20) -> None:
    """Prints which pictures are left out, and why."""
    if not unreadable:
        return
    console.print(Text(f"{len(unreadable)} pictures could not be read and are left out:"))
    for name, reason in unreadable[:most]:
        line = reason if name in reason else f"{name}: {reason}"
        console.print(Text("  " + printable(line)), soft_wrap=True)
    if len(unreadable) > most:
        console.print(Text(f"  ... and {len(unreadable) - most} more (all of them in --json FILE)"))
