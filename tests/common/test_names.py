"""Names of files that are not text."""

from __future__ import annotations

import os

from fastreid_clip3d.common.names import as_utf8, printable


def test_bytes_that_are_not_utf8_are_escaped() -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    assert as_utf8(name) == printable(name) == "caf\\xe9.jpg"
    assert as_utf8("cafÉ 王.jpg") == printable("cafÉ 王.jpg") == "cafÉ 王.jpg"


def test_characters_that_steer_a_terminal_are_escaped() -> None:
    assert printable("a\nb\x1b[31m\u202ec\u200b") == r"a\nb\x1b[31m\u202ec\u200b"
    assert as_utf8("a\nb") == "a\nb"
