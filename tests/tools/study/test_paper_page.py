"""docs/paper_tables.md shows the paper's numbers as tools/study/paper.py holds them, and marks whose each row is."""

from __future__ import annotations

import re

import pytest

from tests.conftest import REPOSITORY
from tools.study.paper import CHAMFER_ON_HBW, TABLES, Score

PAGE = (REPOSITORY / "docs" / "paper_tables.md").read_text(encoding="utf-8")
LICENSED = [number for number in TABLES if number not in ("10", "11")]


def rows_of(number: str) -> list[list[str]]:
    """The cells of a table on the page, its two header lines left out."""
    section = re.search(rf"^### Table {number}:.*?(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, number
    lines = [line for line in section[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def as_text(score: Score) -> str:
    if score == (None, None):
        return "-"
    return " / ".join("-" if value is None else str(value) for value in score)


@pytest.mark.parametrize("number", LICENSED)
def test_rows_of_the_paper_are_the_papers_and_ours_are_marked(number: str) -> None:
    rows = rows_of(number)
    printed = {row[1]: row[2:] for row in rows if row[0] == "paper"}
    assert printed == {method: [as_text(score) for score in row.values()] for method, row in TABLES[number].items()}
    assert [row[0] for row in rows if row[0] != "paper"] == ["**ours**"]


@pytest.mark.parametrize("number", ["10", "11"])
def test_columns_of_the_paper_are_the_papers(number: str) -> None:
    printed = [row[1 : 1 + len(next(iter(TABLES[number].values())))] for row in rows_of(number)]
    expected = [[as_text(score) for score in row.values()] for row in TABLES[number].values()]
    assert printed[: len(expected)] == expected
    assert all(not any(cells) for cells in printed[len(expected) :])


def test_chamfer_distances_are_the_papers() -> None:
    printed = {row[1].split(",")[0]: float(row[2]) for row in rows_of("9") if row[0] == "paper"}
    assert printed == dict(CHAMFER_ON_HBW)
