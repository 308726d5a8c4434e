"""The page of config keys, made from the source of ``config.py``: a key, its default and the comment beside it."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from typing import NamedTuple

from fastreid_clip3d.config import ALLOWED

SOURCE = Path(__file__).with_name("config.py")
INTRODUCTION = """\
# Config keys

Keys that the plug-in adds to fast-reid's, with their defaults: those of the paper where it gives any. Made from
`fastreid_clip3d/config.py` by `clip3d config-keys --output docs/config_keys.md`.

Every key can stand in a yaml file or behind a command, `MODEL.LOSSES.OT.NUM_ITERS 100`. A misspelt key or a value out
of its range is an error that names what is known. `SOLVER.IMS_PER_BATCH` counts the real images of a batch;
`DATALOADER.SYNTHETIC_PER_BATCH` come on top.
"""


class Key(NamedTuple):
    """A key: dotted name, default as written in the source ("" for a group of keys), meaning."""

    name: str
    default: str
    meaning: str


def declared_keys(source: str | None = None) -> list[Key]:
    """Every key and group that ``config.py`` declares, in its order.

    A key's meaning is the comment behind it or the comment lines directly above it.

    Raises:
        ValueError: a key without a comment.
    """
    text = SOURCE.read_text(encoding="utf-8") if source is None else source
    comments = _comments(text)
    lines = text.splitlines()
    keys = []
    for function in ast.parse(text).body:
        if isinstance(function, ast.FunctionDef):
            aliases = {"cfg": ""}
            for statement in function.body:
                keys += _keys_of(statement, aliases, comments, lines)
    return keys


def _keys_of(statement: ast.stmt, aliases: dict[str, str], comments: dict[int, str], lines: list[str]) -> list[Key]:
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return []
    target, value = statement.targets[0], statement.value
    if isinstance(target, ast.Name):  # losses = cfg.MODEL.LOSSES
        name = _dotted(value, aliases) if isinstance(value, ast.Attribute) else None
        if name:
            aliases[target.id] = name
        return []
    name = _dotted(target, aliases)
    if name is None:
        return []
    is_group = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "CN"
    meaning = _meaning(statement, comments, lines)
    if not meaning and not is_group:
        raise ValueError(f"{name} has no comment that says what it means")
    return [Key(name, "" if is_group else ast.unparse(value), meaning)]


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str | None:
    """``losses.OT.SCALE`` as ``MODEL.LOSSES.OT.SCALE``; None for anything but attributes of a known name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in aliases or not parts:
        return None
    return ".".join([aliases[node.id], *parts] if aliases[node.id] else parts)


def _comments(text: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string.lstrip("# ").rstrip() for token in tokens if token.type == tokenize.COMMENT}


def _meaning(statement: ast.stmt, comments: dict[int, str], lines: list[str]) -> str:
    behind = comments.get(statement.end_lineno or statement.lineno)
    if behind:
        return behind
    above: list[str] = []
    line = statement.lineno - 1
    while line in comments and lines[line - 1].lstrip().startswith("#"):
        above.insert(0, comments[line])
        line -= 1
    return " ".join(above)


def config_page() -> str:
    """The page as markdown, one table per group of keys."""
    keys = declared_keys()
    groups = {key.name: key.meaning for key in keys if not key.default}
    tables: dict[str, list[str]] = {}
    for key in keys:
        if key.default:
            group = key.name.rpartition(".")[0]
            values = ALLOWED[key.name].text if key.name in ALLOWED else ""
            row = f"| `{key.name}` | `{_cell(key.default)}` | {_cell(values)} | {_cell(key.meaning)} |"
            tables.setdefault(group, []).append(row)
    sections = []
    for group, rows in tables.items():
        title = [f"## {group or 'Top level'}", ""]
        if groups.get(group):
            title += [groups[group], ""]
        sections.append("\n".join([*title, "| key | default | values | meaning |", "|---|---|---|---|", *rows]))
    return INTRODUCTION + "\n" + "\n\n".join(sections) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
