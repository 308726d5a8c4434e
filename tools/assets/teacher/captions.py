"""Sentences from which a small teacher learns the phrases: the paper's prompt, and other wordings."""

from __future__ import annotations

import numpy as np

from fastreid_clip3d.vocabulary import NUM_PAIRS, PHRASE_PAIRS, PROMPT_TEMPLATE

WORDINGS: tuple[str, ...] = (
    PROMPT_TEMPLATE,
    "a picture of someone who {verb} {phrase}.",
    "the person in this image {verb} {phrase}.",
    "one person, seen by a camera, {verb} {phrase}.",
    "{phrase}.",
)
"""Templates for one phrase; the first is the project's prompt."""


def single_phrase_sentences(wording: str) -> list[str]:
    """The 32 phrases in one wording, in the order of the phrase table."""
    return [
        wording.format(verb=pair.verb, phrase=phrase.lower())
        for pair in PHRASE_PAIRS
        for phrase in (pair.phrase_1, pair.phrase_2)
    ]


def caption(phrase_choices: np.ndarray, pairs: np.ndarray) -> str:
    """One sentence with the chosen phrase of each of some pairs.

    Args:
        phrase_choices: [16], 0 = phrase 1, 1 = phrase 2.
        pairs: indices of these pairs, in the order of the sentence.
    """
    stated = [f"{PHRASE_PAIRS[m].verb} {PHRASE_PAIRS[m][int(phrase_choices[m])].lower()}" for m in pairs]
    listed = stated[0] if len(stated) == 1 else ", ".join(stated[:-1]) + " and " + stated[-1]
    return f"A photo of a person; the person {listed}."


def draw_captions(
    phrase_choices: np.ndarray, rng: np.random.Generator, most_phrases: int = 3
) -> tuple[list[str], np.ndarray]:
    """One caption per row of labels. Each states the phrases of 1 to `most_phrases` random pairs.

    Args:
        phrase_choices: [B, 16].
        rng: source of the randomness.
        most_phrases: largest number of phrases in a caption.

    Returns:
        captions (B), and fits, bool [B, B]: whether caption j (column) is true of image i (row). A caption has few
        phrases, so that many images fit it: all of them are its positives.
    """
    captions, spoken = [], np.zeros(phrase_choices.shape, dtype=bool)
    for row, choices in enumerate(phrase_choices):
        pairs = rng.permutation(NUM_PAIRS)[: rng.integers(1, most_phrases + 1)]
        spoken[row, pairs] = True
        captions.append(caption(choices, pairs))
    differs = phrase_choices[:, None, :] != phrase_choices[None, :, :]
    return captions, ~(differs & spoken[None, :, :]).any(-1)
