"""How names of files are shown: on a screen, in a page and in tables. In json, see ``json_file``."""

from __future__ import annotations

import unicodedata


def as_utf8(name: str) -> str:
    r"""A file's name as text that UTF-8 can hold: each byte that was not UTF-8 becomes ``\xNN``.

    >>> as_utf8("caf\udce9.jpg")
    'caf\\xe9.jpg'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(name: str) -> str:
    r"""A file's name that is safe to print: :func:`as_utf8`, and invisible and control characters are escaped, too.

    >>> print(printable("two\nlines.jpg"))
    two\nlines.jpg
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in ("Cc", "Cs", "Cf")
        else character
        for character in as_utf8(name)
    )
