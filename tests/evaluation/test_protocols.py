"""Which gallery images a protocol removes for a query, exact comparison of ids, and names of protocols."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import (
    CC,
    GENERAL,
    SC,
    Protocol,
    find_protocols,
    is_member,
    removed_mask,
    shared_codes,
    why_no_match,
)  # fmt: skip

# One query: person 7, camera 0, outfit 70. Gallery: (pid, camid, clothes), one item of each kind.
ITEMS = [
    (7, 0, 70),  # same person, same camera, same clothes
    (7, 0, 71),  # same person, same camera, other clothes
    (7, 1, 70),  # same person, other camera, same clothes
    (7, 1, 71),  # same person, other camera, other clothes
    (8, 0, 70),  # somebody else, whatever camera and clothes
    (8, 1, 71),
]
REMOVED = {
    "general": [True, True, False, False, False, False],
    "CC": [True, True, True, False, False, False],
    "SC": [True, True, False, True, False, False],
    "nothing": [False, False, False, False, False, False],
}


@pytest.mark.parametrize("rule", REMOVED)
def test_the_table_of_the_rules(rule: str) -> None:
    pids, camids, clothes = (np.array(column) for column in zip(*ITEMS))
    one = np.array([7]), np.array([0])
    mask = removed_mask(rule, *one, pids, camids, np.array([70]), clothes)
    assert mask.tolist() == [REMOVED[rule]]


@pytest.mark.parametrize("rule", ["CC", "SC"])
def test_rules_on_clothes_refuse_to_go_without(rule: str) -> None:
    ids = np.zeros(1, dtype=int)
    with pytest.raises(ClearError, match=f"{rule} needs clothes ids"):
        removed_mask(rule, ids, ids, ids, ids)


def test_ids_of_any_integer_type_compare_exactly() -> None:
    large = 2**63
    query = np.array([large, large + 1, 5, 2**64 - 1], dtype=np.uint64)
    gallery = np.array([large + 1, 5, large, 0], dtype=np.uint64)
    left, right = shared_codes(query, gallery)
    assert (left[:, None] == right[None]).tolist() == [[int(a) == int(b) for b in gallery] for a in query]
    # the same bits as int64 are other numbers, and -1 is not 2**64 - 1
    signed = np.array([-1, 5, -(2**63), 127], dtype=np.int64)
    left, right = shared_codes(query, signed)
    assert (left[:, None] == right[None]).tolist() == [[int(a) == int(b) for b in signed] for a in query]
    small = np.array([-1, 5], dtype=np.int8)
    left, right = shared_codes(small, np.array([255, 5], dtype=np.uint8))
    assert (left == right).tolist() == [False, True]


def test_choices_of_cameras_and_people() -> None:
    ids = np.array([2**63 + 1, 3, 2**63], dtype=np.uint64)
    assert is_member(ids, frozenset({2**63 + 1})).tolist() == [True, False, False]
    assert is_member(np.array([-1, 0, 2]), frozenset({-1, 2})).tolist() == [True, False, True]
    assert is_member(np.array([1, 2]), None).tolist() == [True, True]
    assert is_member(np.zeros(0, dtype=int), frozenset({1})).tolist() == []


def test_an_unknown_name_is_reported_with_the_nearest_ones() -> None:
    mine = Protocol("CC-change-ids", "CC", pids={1, 2})
    assert find_protocols(["SC", "general", "SC"]) == (SC, GENERAL)
    assert find_protocols(["CC-change-ids", "CC"], [mine]) == (mine, CC)
    with pytest.raises(ClearError, match="'genral' is unknown. Did you mean general.*Known: CC, general, nothing, SC"):
        find_protocols(["genral"])
    with pytest.raises(ClearError, match="Did you mean CC-change-ids"):
        find_protocols(["CC_change_id"], [mine])
    with pytest.raises(ClearError, match="no protocol was named"):
        find_protocols([])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a/b"}, "must not contain '/'"),
        ({"name": "x", "rule": "cc"}, "rule 'cc' is unknown; known rules: general, CC, SC, nothing"),
        ({"name": "x", "tracklet_pooling": "mean"}, "tracklet_pooling 'mean' is unknown"),
        ({"name": "x", "single_shot_draws": -1}, "must be 0 or more"),
    ],
)
def test_impossible_protocols(fields: dict, message: str) -> None:
    with pytest.raises(ClearError, match=message):
        Protocol(**fields)


@pytest.mark.parametrize(
    ("protocol", "query", "gallery", "words"),
    [
        (GENERAL, ([1, 2], [5, 5]), ([2, 1], [5, 5]), "All images are from one camera.*'nothing',"),
        (CC, ([1], [5]), ([1, 3], [5, 5]), "rule CC removes a person's gallery images of the query's own camera"),
        (GENERAL, ([1], [5]), ([1, 3], [5, 6]), "Rule general removes every gallery image of the query's person"),
        (GENERAL, ([1], [5]), ([2], [6]), "No person of the query is in the gallery"),
        (GENERAL, ([], []), ([2], [6]), "No query image takes part"),
        (GENERAL, ([1], [5]), ([], []), "No gallery image takes part"),
    ],
)
def test_why_no_query_has_a_match(protocol: Protocol, query: tuple, gallery: tuple, words: str) -> None:
    assert re.search(words, why_no_match(protocol, *map(np.array, query), *map(np.array, gallery)))
