"""Which queries and gallery items a protocol compares, and who is removed for whom.

A protocol has a rule, and may restrict the test to some cameras or people. For a query, a *removed* gallery item counts
neither as a match nor as a distractor:

=========  =======================================================  ==================================
rule       removed for a query                                      match
=========  =======================================================  ==================================
general    same person and same camera                              same person
CC         same person and (same camera or same clothes)            same person, other clothes
SC         same person and (same camera or other clothes)           same person, same clothes
nothing    nothing                                                  same person
=========  =======================================================  ==================================

Whatever is kept and shows the query's person is a match, so the third column follows from the second.

Shape letters: Q queries, G gallery items.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Iterable

import numpy as np

from fastreid_clip3d.errors import ClearError

RULES = ("general", "CC", "SC", "nothing")
RULES_WITH_CLOTHES = ("CC", "SC")
TRACKLET_POOLINGS = ("", "clips", "frames")


@dataclass(frozen=True)
class Protocol:
    """One way to turn distances into numbers.

    Args:
        name: what stands in the results, ``<dataset>/<name>/mAP``; non-empty, without ``/``.
        rule: one of :data:`RULES`.
        query_cameras: only queries of these cameras are asked; None = all.
        gallery_cameras: only gallery items of these cameras take part; None = all.
        pids: only these people take part, in query and gallery; None = all.
        single_shot_draws: 0 = the whole gallery. n > 0 = n random galleries of one item a person, results averaged.
        seed: of the single-shot draws.
        tracklet_pooling: how the frame features of a tracklet become one feature: "clips" (clips of 8 frames, their
            mean) or "frames" (mean of all frames); "" for images, and for tracklets the same as "clips".

    Raises:
        ClearError: a field has a value outside the above.
    """

    name: str
    rule: str = "general"
    query_cameras: frozenset[int] | None = None
    gallery_cameras: frozenset[int] | None = None
    pids: frozenset[int] | None = None
    single_shot_draws: int = 0
    seed: int = 0
    tracklet_pooling: str = ""

    def __post_init__(self) -> None:
        for field in ("query_cameras", "gallery_cameras", "pids"):
            value = getattr(self, field)
            if value is not None:
                object.__setattr__(self, field, frozenset(int(item) for item in value))
        if not self.name or "/" in self.name:
            raise ClearError(f"protocol name {self.name!r}: must be non-empty and must not contain '/'")
        if self.rule not in RULES:
            raise ClearError(f"protocol {self.name!r}: rule {self.rule!r} is unknown; known rules: {', '.join(RULES)}")
        if self.tracklet_pooling not in TRACKLET_POOLINGS:
            known = ", ".join(repr(pooling) for pooling in TRACKLET_POOLINGS)
            raise ClearError(
                f"protocol {self.name!r}: tracklet_pooling {self.tracklet_pooling!r} is unknown; known: {known}"
            )
        if self.single_shot_draws < 0:
            raise ClearError(f"protocol {self.name!r}: single_shot_draws must be 0 or more")

    @property
    def needs_clothes(self) -> bool:
        """Whether the rule reads clothes ids."""
        return self.rule in RULES_WITH_CLOTHES


GENERAL = Protocol("general", "general")
CC = Protocol("CC", "CC")
SC = Protocol("SC", "SC")
NOTHING_REMOVED = Protocol("nothing", "nothing")

STANDARD_PROTOCOLS = {protocol.name: protocol for protocol in (GENERAL, CC, SC, NOTHING_REMOVED)}


def find_protocols(names: Iterable[str], known: Iterable[Protocol] = ()) -> tuple[Protocol, ...]:
    """The protocols of these names, among `known` and the standard ones, in the order asked for, each once.

    Raises:
        ClearError: a name is unknown (the message has the nearest known names), or no name was given.
    """
    available = dict(STANDARD_PROTOCOLS)
    available.update({protocol.name: protocol for protocol in known})
    found: dict[str, Protocol] = {}
    for name in names:
        if name not in available:
            by_lower = {candidate.lower(): candidate for candidate in available}
            near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(by_lower[match] for match in near)}? " if near else ""
            raise ClearError(f"protocol {name!r} is unknown; {hint}Known protocols: {', '.join(available)}")
        found[name] = available[name]
    if not found:
        raise ClearError(f"no protocol was named; known protocols: {', '.join(available)}")
    return tuple(found.values())


def removed_mask(
    rule: str,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
    query_clothes_ids: np.ndarray | None = None,
    gallery_clothes_ids: np.ndarray | None = None,
) -> np.ndarray:
    """Who is removed for whom: bool [Q, G], True where the gallery item is removed for the query.

    All ids are integer arrays of one id space, [Q] and [G].
    """
    if rule == "nothing":
        return np.zeros((len(query_pids), len(gallery_pids)), dtype=bool)
    same_person = query_pids[:, None] == gallery_pids[None, :]
    removed = query_camids[:, None] == gallery_camids[None, :]
    if rule in RULES_WITH_CLOTHES:
        if query_clothes_ids is None or gallery_clothes_ids is None:
            raise ClearError(f"rule {rule} needs clothes ids of query and gallery, and there are none")
        same_clothes = query_clothes_ids[:, None] == gallery_clothes_ids[None, :]
        removed = removed | (same_clothes if rule == "CC" else ~same_clothes)
    elif rule != "general":
        raise ClearError(f"rule {rule!r} is unknown; known rules: {', '.join(RULES)}")
    return same_person & removed
