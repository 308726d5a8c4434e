"""The 16 pairs of opposite body-shape phrases and the prompt around them (paper, Table 1 and Section 3.2).

Row order of every table of 32 phrases in this project: row ``2 * m`` is phrase 1 of pair ``m``, row ``2 * m + 1`` its
phrase 2. So a label is a choice of 0 (phrase 1) or 1 (phrase 2) for each pair: ``phrase_choices``, int64 [..., 16].
"""

from __future__ import annotations

from typing import NamedTuple


class PhrasePair(NamedTuple):
    """Two opposite phrases, in the paper's words, and the verb that joins them to "the person"."""

    phrase_1: str
    phrase_2: str
    verb: str  # "is" before an adjective, "has" before a noun


PHRASE_PAIRS: tuple[PhrasePair, ...] = (
    PhrasePair("Muscular", "Slender", "is"),
    PhrasePair("Broad-Shouldered", "Narrow-Shouldered", "is"),
    PhrasePair("Heavyset", "Petite", "is"),
    PhrasePair("Tall", "Short", "is"),
    PhrasePair("Long Legs", "Short Legs", "has"),
    PhrasePair("Long Torso", "Short Torso", "has"),
    PhrasePair("Curvy", "Angular", "is"),
    PhrasePair("Full-Figured", "Skinny", "is"),
    PhrasePair("Stocky", "Willowy", "is"),
    PhrasePair("Pear-Shaped", "Apple-Shaped", "is"),
    PhrasePair("Athletic", "Non-Athletic", "is"),
    PhrasePair("Fit", "Unfit", "is"),
    PhrasePair("Large-Breasted", "Small-Breasted", "is"),
    PhrasePair("Long-Armed", "Short-Armed", "is"),
    PhrasePair("Long-Necked", "Short-Necked", "is"),
    PhrasePair("High-Waisted", "Low-Waisted", "is"),
)

NUM_PAIRS: int = len(PHRASE_PAIRS)
"""M, the number of descriptors of one image."""

PHRASES: tuple[str, ...] = tuple(phrase for pair in PHRASE_PAIRS for phrase in (pair.phrase_1, pair.phrase_2))
"""The 32 phrases in row order."""

PROMPT_TEMPLATE: str = "A photo of a person; the person {verb} {phrase}."


def prompts() -> list[str]:
    """The 32 sentences given to CLIP's text encoder, in row order; phrases in lower case.

    >>> prompts()[0]
    'A photo of a person; the person is muscular.'
    >>> prompts()[8]
    'A photo of a person; the person has long legs.'
    """
    return [
        PROMPT_TEMPLATE.format(verb=pair.verb, phrase=phrase.lower())
        for pair in PHRASE_PAIRS
        for phrase in (pair.phrase_1, pair.phrase_2)
    ]
