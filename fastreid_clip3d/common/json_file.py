"""Results as json: in a file, or on standard output where the file's name is ``-``."""

from __future__ import annotations

import json
from typing import Any

from fastreid_clip3d.common.files import check_writable, write_atomically

STANDARD_OUTPUT = "-"


def check_json(path: str) -> None:
    """Checks, before the work, that :func:`write_json` can write; "" stands for no file.

    Raises:
        ClearError: a name that does not end in .json (unless it is a device), or a place that cannot be written.
    """
    if path not in ("", STANDARD_OUTPUT):
        check_writable(path, () if path.startswith("/dev/") else (".json",))


def write_json(path: str, value: Any) -> None:
    """Writes a value, whole or not at all; NaN and infinity are refused.

    A byte of a file's name that is not UTF-8 becomes the escape that ``json.loads`` and ``os.fsencode`` turn back.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if path == STANDARD_OUTPUT:
        print(text.encode("utf-8", "backslashreplace").decode(), end="")
    else:
        write_atomically(path, text.encode("utf-8", "backslashreplace"))
