"""Guesses for a name that nobody knows."""

from __future__ import annotations

from fastreid_clip3d.common.near_names import did_you_mean, near_names

KNOWN = ("TrainingSampler", "NaiveIdentitySampler", "BalancedIdentitySampler")


def test_near_names_come_nearest_first_and_whatever_their_case() -> None:
    assert near_names("naiveidentitysampler", KNOWN, count=2) == ["NaiveIdentitySampler", "BalancedIdentitySampler"]
    assert near_names("TRAININGSAMPLER", KNOWN, count=1) == ["TrainingSampler"] and near_names("ltcc", ["LTCC"]) == [
        "LTCC"
    ]
    assert did_you_mean("traininsampler", KNOWN).startswith("Did you mean TrainingSampler")


def test_a_name_that_is_nowhere_near_is_no_guess() -> None:
    assert near_names("zebra", KNOWN) == []
    assert did_you_mean("zebra", KNOWN) == "Known: BalancedIdentitySampler, NaiveIdentitySampler, TrainingSampler."


def test_long_lists_are_cut_and_short_answers_leave_them_out() -> None:
    many = [f"key{number:03d}" for number in range(100)]
    assert did_you_mean("zebra", many, shown=2) == "Known: key000, key001 and 98 more."
    assert did_you_mean("key99x", many, shown=0).endswith("?") and "Known" not in did_you_mean("key99x", many, shown=0)
    assert did_you_mean("zebra", many, shown=0).endswith("key059 and 40 more.")
    assert did_you_mean("zebra", []) == "No name is known."
