"""What a verb or a tool says about itself."""

from __future__ import annotations

import contextlib
import functools
import io
import re

from tests.conftest import REPOSITORY
from tests.docs.commands import ASSIGNMENTS, joined_lines
from tests.docs.in_process import parse_only

EXAMPLE = re.compile(rf"{ASSIGNMENTS}(?:clip3d|python|torchrun)\s")


@functools.cache
def help_of(*words: str) -> str:
    """``clip3d VERB --help``, or a tool's; fails unless it ends with exit code 0."""
    said = io.StringIO()
    code: object = None
    with contextlib.redirect_stdout(said):
        try:
            parse_only([*words, "--help"], REPOSITORY)
        except SystemExit as ended:
            code = ended.code or 0
    assert code == 0, f"{' '.join(words)} --help ended with {code}"
    return said.getvalue()


def examples_of(text: str) -> list[str]:
    """The commands below ``examples:``, continuation lines joined, without what two spaces behind them explain."""
    lines = [line for _, line in joined_lines(text.partition("examples:")[2])]
    return [re.split(r"\s{2,}", line)[0] for line in lines if EXAMPLE.match(line)]
