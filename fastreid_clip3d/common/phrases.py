"""Phrases of the vocabulary as people write them."""

from __future__ import annotations

from fastreid_clip3d.common.near_names import near_names
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import PHRASES


def find_phrase(text: str) -> int | None:
    """Row, 0..31, of a phrase, whatever its case, hyphens, underscores and spaces; None for any other text.

    >>> find_phrase("narrow shouldered"), find_phrase("LONG_LEGS"), find_phrase("kind")
    (3, 8, None)
    """
    return _ROWS.get(_plain(text))


def near_phrases(text: str) -> list[str]:
    """The vocabulary's phrases that are spelt most like a text, the nearest first; at most three."""
    return [PHRASES[_ROWS[near]] for near in near_names(_plain(text), _ROWS)]


def require_phrase(text: str, remedy: str = "") -> int:
    """Row, 0..31, of a phrase.

    Args:
        text: what the user wrote.
        remedy: one more sentence for the error.

    Raises:
        ClearError: no such phrase; the nearest ones are named, then all.
    """
    row = find_phrase(text)
    if row is None:
        near = near_phrases(text)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        known = f"Known: {', '.join(PHRASES)}."
        raise ClearError(f"{text!r} is none of the 32 phrases. {hint}{known} {remedy}".rstrip())
    return row


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("-", " ").replace("_", " ").split())


_ROWS = {_plain(phrase): row for row, phrase in enumerate(PHRASES)}
