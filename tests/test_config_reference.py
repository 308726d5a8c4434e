"""The page of config keys is what config.py says, and holds every key there is."""

from __future__ import annotations

import pytest
from fastreid.config import get_cfg as fastreid_cfg

from fastreid_clip3d.config import get_cfg
from fastreid_clip3d.config_loading import all_keys
from fastreid_clip3d.config_reference import config_page, declared_keys
from tests.conftest import REPOSITORY


def test_every_added_key_is_declared_with_its_default() -> None:
    cfg, theirs = get_cfg(), set(all_keys(fastreid_cfg()))
    added = {key for key in all_keys(cfg) if key not in theirs}
    declared = {key.name: key.default for key in declared_keys() if key.default}
    assert set(declared) == added
    for name, default in declared.items():
        value = cfg
        for part in name.split("."):
            value = value[part]
        assert repr(value) == default


def test_the_page_in_the_docs_is_up_to_date() -> None:
    page = (REPOSITORY / "docs" / "config_keys.md").read_text(encoding="utf-8")
    assert page == config_page(), "run: clip3d config-keys --output docs/config_keys.md"


def test_meaning_is_the_comment_behind_or_above() -> None:
    source = (
        "def add(cfg):\n    # Above,\n    # two lines.\n    cfg.A = 1\n    losses = cfg.LOSSES\n"
        "    losses.B = 0.5  # Behind.\n    # A group.\n    losses.GROUP = CN()\n"
    )
    assert declared_keys(source) == [
        ("A", "1", "Above, two lines."),
        ("LOSSES.B", "0.5", "Behind."),
        ("LOSSES.GROUP", "", "A group."),
    ]


def test_a_key_without_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match="LOSSES.B has no comment"):
        declared_keys("def add(cfg):\n    losses = cfg.LOSSES\n    losses.B = 1\n")
