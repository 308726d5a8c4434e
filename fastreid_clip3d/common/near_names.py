"""Which known names are near a name that nobody knows, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.6
"""difflib's similarity, 0..1, from which a name counts as near; below it unrelated words begin to match."""


def near_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that are spelt most like `name`, the nearest first; upper and lower case are the same.

    >>> near_names("ltc", ["PRCC", "LTCC", "CCVID"])
    ['LTCC']
    """
    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), candidate)
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=CUTOFF)]


def did_you_mean(name: str, known: Iterable[str], shown: int = 60) -> str:
    """One line for the end of an error message: the near names, then the known ones.

    Args:
        name: what the user wrote. known: what would have been right.
        shown: how many of the known names are listed at most; 0 lists them only where no name is near.

    Returns:
        ``Did you mean A or B? Known: A, B, C.``, without the question where no known name is near.

    >>> did_you_mean("LTTC", ["PRCC", "LTCC"])
    'Did you mean LTCC? Known: LTCC, PRCC.'
    >>> did_you_mean("Tokyo", ["PRCC", "LTCC"])
    'Known: LTCC, PRCC.'
    """
    names = sorted(known, key=str.lower)
    near = near_names(name, names)
    sentences = [f"Did you mean {' or '.join(near)}?"] if near else []
    if not names:
        sentences.append("No name is known.")
    elif shown or not near:
        listed = names[: shown or 60]
        more = f" and {len(names) - len(listed)} more" if len(listed) < len(names) else ""
        sentences.append(f"Known: {', '.join(listed)}{more}.")
    return " ".join(sentences)
