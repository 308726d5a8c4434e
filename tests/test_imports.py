"""Who may import whom: rooms import only rooms before them, so that the way of the data can be read off the tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "fastreid_clip3d"
ORDER_LINE = (
    "errors, vocabulary < common < compat < config < body < synthcc < teacher < data < evaluation < modeling < engine "
    "< inference < visualization < cli"
)
"""Rooms to the left may be imported by rooms to the right. CONTRIBUTING.md and docs/extending.md have the same line."""
RANK = {name: rank for rank, names in enumerate(ORDER_LINE.split(" < ")) for name in names.split(", ")}
RANK["config_loading"] = RANK["config_reference"] = RANK["config"]
RANK["registration"] = RANK["modeling"]  # it registers data and modeling
OUTSIDE = ("__main__", "registration")
"""Files at the top that start things; no room imports them."""
FOR_EVERYONE = {"evaluation.protocols", "evaluation.metrics"}
"""Pure functions of arrays: NumPy and torch only."""
IMPORTED_WHEN_NEEDED = {
    "onnx": "an extra",
    "onnxruntime": "an extra",
    "pyarrow": "an extra",
    "pytorch3d": "an extra",
    "trimesh": "only mesh files need it",
    "matplotlib": "slow to import, and few runs draw",
    "faiss": "slow to import, and few runs search",
    "huggingface_hub": "slow to import, and only downloads need it",
}
"""Libraries that a function may import; everything else stands at the top of its file."""
LAZY = {
    ("evaluation/__init__.py", "evaluation.evaluator"): "the protocols can be used without fast-reid",
    ("engine/tensorboard.py", "visualization"): "the one hook that draws",
    ("inference/load.py", "inference.towers"): "a student needs neither open_clip nor a teacher",
    ("inference/model.py", "teacher.guidance"): "a student that searches needs no teacher",
    ("modeling/meta_arch/clip3d_reid.py", "modeling.meta_arch.own_losses"): "a student that searches needs no teacher",
}
"""Own modules that a function imports, each with its reason."""
STARTERS = ("registration.py", "cli", "compat")
"""They decide what is imported when: cli after its parser, compat and registration before fast-reid."""
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.stem not in OUTSIDE and path != PACKAGE / "__init__.py")


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


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_lazy(path: Path, name: str) -> bool:
    place = path.relative_to(PACKAGE).as_posix()
    return any(place == file and (name == own or name.startswith(own + ".")) for file, own in LAZY)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_rooms_before_them(path: Path) -> None:
    own = room(path)
    assert own in RANK, f"{own} has no place in the order of rooms"
    for name in own_rooms(path):
        imported = name.split(".")[0]
        if imported == own or imported == "__version__" or is_lazy(path, name):
            continue
        if any(name == free or name.startswith(free + ".") for free in FOR_EVERYONE):
            continue
        assert imported in RANK, f"{path} imports {name}"
        assert RANK[imported] <= RANK[own], f"{path} imports {name}"
        assert own != "modeling" or imported != "evaluation", f"{path} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_stand_at_the_top_and_are_absolute(path: Path) -> None:
    tree = ast.parse(path.read_text())
    relative = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert not relative, f"{path}: relative imports in lines {relative}"
    if path.relative_to(PACKAGE).parts[0] in STARTERS:
        return
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for node in ast.walk(function):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                own = name.removeprefix("fastreid_clip3d.")
                allowed = name.split(".")[0] in IMPORTED_WHEN_NEEDED or is_lazy(path, own)
                assert allowed, f"{path}:{node.lineno} imports {name} inside {function.name}"


def test_lazy_imports_are_those_that_are_there() -> None:
    for file, own in LAZY:
        assert own.split(".")[-1] in (PACKAGE / file).read_text(), f"{file} no longer imports {own}"


def test_the_package_does_not_import_tools_or_tests() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not [name for name in imported_modules(path) if name.split(".")[0] in ("tools", "tests")], path
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        by_name = [text for text in texts if isinstance(text, str) and re.fullmatch(r"(tools|tests)(\.\w+)+", text)]
        assert not by_name, f"{path} names {by_name}, perhaps for importlib"


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/extending.md"])
def test_documents_have_the_same_order(document: str) -> None:
    assert ORDER_LINE in " ".join((REPOSITORY / document).read_text().split())


@pytest.mark.parametrize("path", sorted((PACKAGE / "modeling" / "losses").glob("*.py")), ids=lambda path: path.name)
def test_losses_are_functions_of_tensors(path: Path) -> None:
    assert not [name for name in imported_modules(path) if name.split(".")[0] in ("fastreid", "yacs")]
    assert all(name.startswith("modeling.losses") for name in own_rooms(path))
    assert "torch.distributed" not in path.read_text()


@pytest.mark.parametrize("folder", ["common", "body", "synthcc", "teacher"])
def test_rooms_before_the_data_know_nothing_of_fastreid(folder: str) -> None:
    for path in (PACKAGE / folder).rglob("*.py"):
        assert not [name for name in imported_modules(path) if name.split(".")[0] == "fastreid"], path
