"""Which queries and gallery items a protocol compares, and which gallery items it removes for a query.

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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fastreid_clip3d.common.near_names import did_you_mean
from fastreid_clip3d.errors import ClearError

Rule = Literal["general", "CC", "SC", "nothing"]
Pooling = Literal["clips", "frames"]
RULES = get_args(Rule)
TRACKLET_POOLINGS = ("", *get_args(Pooling))


@dataclass(frozen=True)
class Protocol:
    """One way to turn distances into numbers.

    Args:
        name: the name in the results, ``<dataset>/<name>/mAP``; non-empty, without ``/``.
        query_cameras, gallery_cameras: only queries or gallery items of these cameras take part; None: all.
        pids: only these people take part, in query and gallery; None: all.
        single_shot_draws: 0: the whole gallery. n > 0: n random galleries of one item per person, results averaged.
        seed: of the single-shot draws.
        tracklet_pooling: how the frames of a tracklet become one feature: "clips" (the mean of clips of 8 frames) or
            "frames" (the mean of all frames); "" for images, and for tracklets the same as "clips".

    Raises:
        ClearError: a field has a value outside the above.
    """

    name: str
    rule: Rule = "general"
    query_cameras: frozenset[int] | None = None
    gallery_cameras: frozenset[int] | None = None
    pids: frozenset[int] | None = None
    single_shot_draws: int = 0
    seed: int = 0
    tracklet_pooling: Literal["", "clips", "frames"] = ""

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
        return self.rule in ("CC", "SC")


GENERAL = Protocol("general", "general")
CC = Protocol("CC", "CC")
SC = Protocol("SC", "SC")
NOTHING_REMOVED = Protocol("nothing", "nothing")

STANDARD_PROTOCOLS = {protocol.name: protocol for protocol in (GENERAL, CC, SC, NOTHING_REMOVED)}


def find_protocols(names: Iterable[str], known: Iterable[Protocol] = ()) -> tuple[Protocol, ...]:
    """The protocols of these names, among `known` and the standard ones, in the order of the names, each once.

    Raises:
        ClearError: a name is unknown (the message has the nearest known names), or no name was given.

    >>> [(protocol.name, protocol.needs_clothes) for protocol in find_protocols(["general", "CC"])]
    [('general', False), ('CC', True)]
    """
    available = dict(STANDARD_PROTOCOLS)
    available.update({protocol.name: protocol for protocol in known})
    found: dict[str, Protocol] = {}
    for name in names:
        if name not in available:
            raise ClearError(f"Protocol {name!r} is unknown. {did_you_mean(name, available)}")
        found[name] = available[name]
    if not found:
        raise ClearError(f"no protocol was named; known protocols: {', '.join(available)}")
    return tuple(found.values())


def removes(rule: Rule, same_camera: np.ndarray, same_clothes: np.ndarray | None = None) -> np.ndarray:
    """The rule itself, on pairs of a query and a gallery item of the same person: True where it removes the item.

    Args:
        same_camera: bool, any shape. same_clothes: bool, the same shape; only CC and SC need it.
    """
    if rule == "nothing":
        return np.zeros_like(same_camera)
    if rule == "general":
        return same_camera
    if rule not in RULES:
        raise ClearError(f"rule {rule!r} is unknown; known rules: {', '.join(RULES)}")
    if same_clothes is None:
        raise ClearError(f"rule {rule} needs clothes ids of query and gallery, and there are none")
    return same_camera | (same_clothes if rule == "CC" else ~same_clothes)


def removed_mask(
    rule: Rule,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
    query_clothes_ids: np.ndarray | None = None,
    gallery_clothes_ids: np.ndarray | None = None,
) -> np.ndarray:
    """Whether the gallery item is removed for the query, bool [Q, G].

    All ids are integer arrays of one id space, [Q] and [G]. The evaluation does not build this array: it calls
    :func:`removes` for the items of the query's person only.
    """
    same_person = query_pids[:, None] == gallery_pids[None, :]
    same_camera = query_camids[:, None] == gallery_camids[None, :]
    same_clothes = None
    if query_clothes_ids is not None and gallery_clothes_ids is not None:
        same_clothes = query_clothes_ids[:, None] == gallery_clothes_ids[None, :]
    return same_person & removes(rule, same_camera, same_clothes)


def why_no_match(
    protocol: Protocol,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
) -> str:
    """The reason why a protocol finds no match for any query, with the user's remedy.

    Args:
        query_pids, query_camids, gallery_pids, gallery_camids: integer ids of the items that the protocol compares, [Q]
            and [G], in one id space.
    """
    if not len(query_pids) or not len(gallery_pids):
        side = "gallery" if len(query_pids) else "query"
        return f"No {side} image takes part in this protocol: look at its cameras and people."
    if not np.isin(query_pids, gallery_pids).any():
        return "No person of the query is in the gallery."
    if protocol.rule != "nothing" and len({*query_camids.tolist(), *gallery_camids.tolist()}) == 1:
        return (
            f"All images are from one camera, and rule {protocol.rule} removes a person's gallery images of the "
            "query's own camera. Protocol nothing removes no image: choose it with --protocols nothing, in training "
            "with TEST.EVALUATION.PROTOCOLS \"('nothing',)\"."
        )
    return (
        f"Rule {protocol.rule} removes every gallery image of the query's person, since it has the query's camera or "
        "the clothes that the rule leaves out."
    )


def shared_codes(query_ids: np.ndarray, gallery_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids of any integer types as int64 codes, equal exactly where the ids are equal, in the order of the ids.

    NumPy joins int64 and uint64 arrays through float64, where 2**63 and 2**63 + 1 are the same number.
    """
    above, low = [], []
    for ids in (query_ids, gallery_ids):
        if ids.dtype.kind == "u" and ids.dtype.itemsize == 8:
            native = ids.astype(np.uint64)
            above.append(native >= np.uint64(2**63))
            low.append(native.view(np.int64))
        else:
            low.append(ids.astype(np.int64))
            above.append(np.zeros(len(ids), dtype=bool))
    _, codes = np.unique(np.concatenate(low), return_inverse=True)
    # ids of 2**63 and more look negative in `low`: they come after all others
    codes = codes.reshape(-1).astype(np.int64) + np.concatenate(above) * np.int64(len(codes) + 1)
    _, codes = np.unique(codes, return_inverse=True)
    codes = codes.reshape(-1).astype(np.int64)
    return codes[: len(query_ids)], codes[len(query_ids) :]


def is_member(ids: np.ndarray, members: frozenset[int] | None) -> np.ndarray:
    """Which ids are in `members`, compared exactly: bool [N]; all of them where `members` is None."""
    if members is None:
        return np.ones(len(ids), dtype=bool)
    values, inverse = np.unique(ids, return_inverse=True)
    return np.array([int(value) in members for value in values], dtype=bool)[inverse.reshape(-1)]
