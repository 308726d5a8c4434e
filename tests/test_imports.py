"""Who may import whom: rooms import only rooms before them, so that the way of the data can be read off the tree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "fastreid_clip3d"
ORDER = (
    "errors", "compat", "vocabulary", "config", "body", "teacher", "data", "evaluation", "modeling", "engine", "inference",
    "search", "visualization", "report", "demo", "study", "benchmarks",
)  # fmt: skip
FOR_EVERYONE = {"errors", "vocabulary", "evaluation.protocols", "evaluation.metrics"}
LAZY = {("engine/tensorboard.py", "visualization")}
"""The one hook that draws: what it needs is imported when an evaluation has something to draw."""
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imported_modules(path: Path) -> set[str]:
    """Absolute names of everything a file imports, relative imports resolved, imports inside functions too."""
    package = path.relative_to(REPOSITORY).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            found.update(f"{module}.{name.name}" for name in node.names)
    return found


def own_rooms(path: Path) -> set[str]:
    """The part behind ``fastreid_clip3d.`` of the package's own modules that a file imports."""
    prefix = "fastreid_clip3d."
    return {name[len(prefix) :] for name in imported_modules(path) if name.startswith(prefix)}


def room(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_rooms_before_them(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0]
    for name in own_rooms(path):
        imported = room(name)
        if imported == own or any(name == free or name.startswith(free + ".") for free in FOR_EVERYONE):
            continue
        if (path.relative_to(PACKAGE).as_posix(), imported) in LAZY:
            continue
        assert imported in ORDER, f"{path} imports {name}"
        assert ORDER.index(imported) < ORDER.index(own), f"{path} imports {name}"
        assert own != "modeling" or imported != "evaluation", f"{path} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "modeling" / "losses").glob("*.py")), ids=lambda path: path.name)
def test_losses_are_functions_of_tensors(path: Path) -> None:
    assert not [name for name in imported_modules(path) if name.split(".")[0] in ("fastreid", "yacs")]
    assert all(name.startswith("modeling.losses") for name in own_rooms(path))
    assert "torch.distributed" not in path.read_text()


@pytest.mark.parametrize("folder", ["body", "teacher"])
def test_bodies_and_teacher_know_nothing_of_fastreid(folder: str) -> None:
    for path in (PACKAGE / folder).rglob("*.py"):
        assert not [name for name in imported_modules(path) if name.split(".")[0] == "fastreid"], path
