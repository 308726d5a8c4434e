"""What a search found, for programs (json) and for readers (a table on the screen)."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.evaluation.calibration import Comparison


@dataclass(frozen=True)
class Hit:
    """One entry of the gallery.

    Args:
        name: as the gallery's listing has it. `picture`: a file to show, of a tracklet its middle frame.
        similarity: cosine with the query, or the score of the phrases (see ``phrases``).
        comparison: what the calibration says of it; None without one, and for phrases.
    """

    name: str
    picture: Path
    similarity: float
    comparison: Comparison | None = None

    @property
    def verdict(self) -> str:
        """How sure the model is, in words; "" where it cannot say."""
        return self.comparison.sentence.partition(": ")[2] if self.comparison else ""


@dataclass(frozen=True)
class Answer:
    """The best entries for one query, best first; `picture` is None for phrases."""

    query: str
    picture: Path | None
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class Answers:
    """A whole search.

    Args:
        kind: "similarity" or "score", what the hits' numbers are.
        unreadable: (name, what is wrong) of queries and gallery.
        note: what the calibration's check says of this gallery; "" where there is nothing to say.
    """

    answers: tuple[Answer, ...]
    kind: str
    gallery: str
    gallery_size: int
    unreadable: tuple[tuple[str, str], ...] = ()
    note: str = ""


def printable(text: str) -> str:
    """A file's name that is safe on a screen and in a page: no control characters, nothing that UTF-8 cannot hold."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in ("Cc", "Cs", "Cf") else character
        for character in text
    )


def as_dict(found: Answers) -> dict[str, Any]:
    """For json; names keep bytes that are not UTF-8 as Python's surrogates (``os.fsencode`` gives them back)."""
    return {
        "gallery": found.gallery,
        "gallery_size": found.gallery_size,
        "calibration_note": found.note,
        "answers": [
            {
                "query": answer.query,
                "hits": [
                    {
                        "rank": rank,
                        "name": hit.name,
                        found.kind: hit.similarity,
                        **(
                            {"same_person": hit.comparison.same_person, "by_protocol": hit.comparison.by_protocol}
                            if hit.comparison
                            else {}
                        ),
                    }
                    for rank, hit in enumerate(answer.hits, start=1)
                ],
            }
            for answer in found.answers
        ],
        "unreadable": [{"name": name, "reason": reason} for name, reason in found.unreadable],
    }


def write_json(found: Answers, path: str | Path) -> None:
    """Writes the answers, whole or not at all."""
    text = json.dumps(as_dict(found), indent=2, allow_nan=False) + "\n"
    write_atomically(path, text.encode("ascii"))


def print_answers(found: Answers, console: Console) -> None:
    """One table per query, and the note on the calibration."""
    has_verdicts = any(hit.verdict for answer in found.answers for hit in answer.hits)
    for answer in found.answers:
        console.print(Text(printable(answer.query), style="bold"), soft_wrap=True)
        table = Table()
        table.add_column("rank", justify="right")
        table.add_column(found.kind, justify="right")
        table.add_column("picture", overflow="fold")
        if has_verdicts:
            table.add_column("how sure", overflow="fold")
        for rank, hit in enumerate(answer.hits, start=1):
            number = f"{hit.similarity:.4f}" if found.kind == "similarity" else f"{hit.similarity:.3g}"
            name = Text(printable(os.path.relpath(hit.name, found.gallery)))
            table.add_row(str(rank), number, name, *([Text(hit.verdict)] if has_verdicts else []))
        console.print(table)
    if found.note:
        console.print(Text(found.note), soft_wrap=True)


def report_unreadable(unreadable: Sequence[tuple[str, str]], console: Console, most: int = 20) -> None:
    """Says which pictures are left out, and why."""
    if not unreadable:
        return
    console.print(Text(f"{len(unreadable)} pictures could not be read and are left out:"))
    for name, reason in unreadable[:most]:
        line = reason if name in reason else f"{name}: {reason}"
        console.print(Text("  " + printable(line)), soft_wrap=True)
    if len(unreadable) > most:
        console.print(Text(f"  ... and {len(unreadable) - most} more (all of them in --json FILE)"))
