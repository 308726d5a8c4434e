"""Names of files that are not text."""

from __future__ import annotations

import json
import os

from fastreid_clip3d.common.names import as_utf8, printable, printable_names


def test_bytes_that_are_not_utf8_are_escaped() -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    assert as_utf8(name) == printable(name) == "caf\\xe9.jpg"
    assert as_utf8("cafÉ 王.jpg") == printable("cafÉ 王.jpg") == "cafÉ 王.jpg"


def test_characters_that_steer_a_terminal_are_escaped() -> None:
    assert printable("a\nb\x1b[31m\u202ec\u200b") == r"a\nb\x1b[31m\u202ec\u200b"
    assert as_utf8("a\nb") == "a\nb"


def test_json_holds_such_names() -> None:
    name = os.fsdecode(b"\xff")
    report = {name: [name, {"path": (name, 1, None)}]}
    text = json.dumps(printable_names(report), ensure_ascii=False)
    assert text.encode() and json.loads(text) == {"\\xff": ["\\xff", {"path": ["\\xff", 1, None]}]}
