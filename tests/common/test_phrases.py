"""Phrases as people write them."""

from __future__ import annotations

import pytest

from fastreid_clip3d.common.phrases import find_phrase, near_phrases, require_phrase
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import PHRASES


@pytest.mark.parametrize("text", ["broad shouldered", " Broad-Shouldered", "BROAD__SHOULDERED"])
def test_case_hyphens_and_spaces_do_not_matter(text: str) -> None:
    assert PHRASES[find_phrase(text)] == PHRASES[require_phrase(text)] == "Broad-Shouldered"


def test_an_unknown_phrase_names_the_nearest_and_all() -> None:
    assert find_phrase("long leg") is None and near_phrases("long leg")[0] == "Long Legs"
    with pytest.raises(
        ClearError, match="'tal' is none of the 32 phrases. Did you mean Tall.*Known: Muscular.*Do this."
    ):
        require_phrase("tal", "Do this.")
    with pytest.raises(ClearError, match="phrases. Known"):
        require_phrase("xyzzy")
