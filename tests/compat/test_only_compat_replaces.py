"""No file outside compat/ replaces a function, class or module of another library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "fastreid_clip3d"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "compat" not in path.relative_to(PACKAGE).parts)
SETTINGS = ("torch.backends.",)
"""Attributes below these are settings, which torch documents to be assigned."""


def replacements(source: str) -> list[str]:
    """``line: name`` of everything a file replaces in what it imports, or with what it could do so.

    Found are assignments, deletions, ``setattr`` and ``delattr`` on an imported name, on a simple alias of it
    (``alias = module.part``) or on their ``__dict__``; changes of ``sys.modules``; and every import of ``mock``.
    """
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                first = name.name.split(".")[0]
                imported[name.asname or first] = name.name if name.asname else first
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                imported[name.asname or name.name] = f"{node.module}.{name.name}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [getattr(node, "module", None) or "", *(name.name for name in node.names)]
            if any("mock" in module.split(".") for module in modules):
                found.append(f"{node.lineno}: mock")
    for node in ast.walk(tree):  # simple aliases
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute) and _imported(node.value, imported):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    imported[target.id] = _imported(node.value, imported)
    for node in ast.walk(tree):
        for target in _targets(node):
            name = _imported(target, imported)
            if name and not name.startswith(SETTINGS):
                found.append(f"{node.lineno}: {name}")
    return found


def _targets(node: ast.AST) -> list[ast.expr]:
    """What a statement or call assigns to or deletes, where it is no plain variable."""
    if isinstance(node, ast.Assign | ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For | ast.NamedExpr):
        targets = [node.target]
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        targets = [node.optional_vars]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
        return [ast.Attribute(node.args[0], "?")]
    else:
        return []
    flat: list[ast.expr] = []
    for target in targets:
        flat += target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
    changed = []
    for target in flat:
        if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Attribute):
            if target.value.attr in ("__dict__", "modules"):
                changed.append(target.value)
        elif isinstance(target, ast.Attribute):
            changed.append(target)
    return changed


def _imported(node: ast.expr, imported: dict[str, str]) -> str:
    """The dotted name of an attribute of an imported name; "" for any other expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([imported[node.id], *parts]) if parts and isinstance(node, ast.Name) and node.id in imported else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_outside_compat_replaces_what_others_wrote(path: Path) -> None:
    assert replacements(path.read_text(encoding="utf-8")) == []


def test_compat_itself_is_found_out() -> None:
    """The search finds what it is meant to find: compat's probes use mock."""
    found = [path.name for path in (PACKAGE / "compat").glob("*.py") if replacements(path.read_text(encoding="utf-8"))]
    assert "metrics.py" in found and "locate.py" in found


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch\ntorch.nn.Module.load_state_dict = print", "torch.nn.Module.load_state_dict"),
        ("from torch import nn\ndef f():\n    nn.Module.load_state_dict = print", "torch.nn.Module.load_state_dict"),
        ("import torch.nn as nn\nnn.ReLU = None", "torch.nn.ReLU"),
        (
            "from fastreid.modeling.meta_arch import baseline as b\nb.build = 1",
            "fastreid.modeling.meta_arch.baseline.build",
        ),
        ("import timm\nsetattr(timm, 'create_model', print)", "timm.?"),
        ("import open_clip\nsetattr(open_clip.model, 'CLIP', print)", "open_clip.model.?"),
        ("import torchvision\ndel torchvision.io", "torchvision.io"),
        ("def f():\n    from torch import nn\n    nn.ReLU, x = 1, 2", "torch.nn.ReLU"),
        ("import torch\nlayers = torch.nn\nlayers.ReLU = None", "torch.nn.ReLU"),
        ("import torch\ntorch.__dict__['nn'] = None", "torch.__dict__"),
        ("import sys\nsys.modules['torch._six'] = None", "sys.modules"),
        ("from unittest import mock", "mock"),
        ("from unittest.mock import patch", "mock"),
        ("import unittest.mock", "mock"),
    ],
)
def test_every_way_to_replace_is_found(source: str, name: str) -> None:
    assert [line.split(": ")[1] for line in replacements(source)] == [name]


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.backends.cudnn.benchmark = True",
        "import torch\nmodel = torch.nn.ReLU()\nmodel.inplace = True",
        "import torch\nx = torch.zeros(3)\nx[0] = 1\nsetattr(x, 'name', 2)",
        "import os\nos.environ['A'] = 'b'",
    ],
)
def test_settings_objects_and_items_are_no_replacements(source: str) -> None:
    assert replacements(source) == []
