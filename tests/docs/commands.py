"""What a reader of the documents types, and where they point: commands, Python blocks, links.

Commands stand in fenced blocks (```bash or without a language), in indented blocks, and in inline code that begins with
``clip3d VERB`` and an argument, ``python tools/``, ``make``, ``pip install`` or ``export``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

SHELL = ("bash", "sh", "console")
PROGRAMS = ("clip3d", "python", "torchrun", "tensorboard", "make", "pip", "export", "source", "chromium", "git", "cd")
ASSIGNMENTS = r"(?:[A-Z_][A-Z0-9_]*=\S*\s+)*"
COMMAND = re.compile(rf"{ASSIGNMENTS}(?:{'|'.join(PROGRAMS)})(?:\s|$)")
TOOL = r"tools/(?:\w+/)*\w+\.py\b"
IN_A_SENTENCE = re.compile(
    rf"{ASSIGNMENTS}(?:clip3d [a-z]|python -m fastreid_clip3d [a-z]|(?:python|torchrun [^`]*?) ?{TOOL}"
    "|make [a-z]+$|pip install |export [A-Z_]+=)"
)
MENTIONED = re.compile(rf"{TOOL}|clip3d [a-z-]+(?: --[a-z-]+| [A-Z]+)*$")
"""A tool, or a verb with bare flags and capitals in place of values: what is said of it, not what is typed."""
PYTHON_START = re.compile(r"(?:from \w[\w.]* import|import \w)")
HTML_TARGET = re.compile(r"""(?:src|href)=["']([^"']+)["']""")


@dataclass(frozen=True)
class Command:
    """One command as it is written, continuation lines joined."""

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"


@dataclass(frozen=True)
class PythonBlock:
    """A block of Python code."""

    document: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: Python block"


@dataclass(frozen=True)
class Document:
    """Steps are in the order in which they stand. `links` (line, target) hold images too."""

    name: str
    steps: tuple[Command | PythonBlock, ...]
    links: tuple[tuple[int, str], ...]
    mentions: tuple[Command, ...]  # inline code that names a tool or a verb
    csv_blocks: tuple[str, ...]


def documents(repository: Path) -> list[Path]:
    """README.md and every page of docs."""
    return [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]


def read_document(path: Path, repository: Path) -> Document:
    """Takes a document apart."""
    name = path.relative_to(repository).as_posix()
    steps: list[Command | PythonBlock] = []
    links: list[tuple[int, str]] = []
    mentions: list[Command] = []
    csv_blocks: list[str] = []
    line = 0
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else line
        if token.type in ("fence", "code_block"):
            first = line + (token.type == "fence")
            steps += _steps_of_block(name, first, token)
            if re.match(r"path,pid,camid\b", token.content):
                csv_blocks.append(token.content)
        elif token.type == "html_block":
            links += [(line, target) for target in HTML_TARGET.findall(token.content)]
        for child in token.children or ():
            if child.type == "code_inline":
                text = " ".join(child.content.split())
                if MENTIONED.match(text):
                    mentions.append(Command(name, line, text))
                elif IN_A_SENTENCE.match(text):
                    steps.append(Command(name, line, text))
            elif child.type in ("link_open", "image"):
                links.append((line, str(child.attrs.get("href", child.attrs.get("src")))))
            elif child.type == "html_inline":
                links += [(line, target) for target in HTML_TARGET.findall(child.content)]
    return Document(name, tuple(steps), tuple(links), tuple(mentions), tuple(csv_blocks))


def _steps_of_block(name: str, line: int, token: Token) -> list[Command | PythonBlock]:
    language = token.info.strip().split(" ")[0] if token.info else ""
    if language == "python" or (not language and PYTHON_START.match(token.content)):
        return [PythonBlock(name, line, token.content)]
    if language and language not in SHELL:
        return []
    return [
        Command(name, line + offset, text)
        for offset, text in joined_lines(token.content)
        if text and not text.startswith("#") and (language or COMMAND.match(text))
    ]


def joined_lines(text: str) -> Iterator[tuple[int, str]]:
    """(Number of the first line from 0, the line with its continuations)."""
    parts: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines()):
        if not parts:
            start = number
        whole = not line.rstrip().endswith("\\")
        parts.append(line.strip() if whole else line.rstrip()[:-1].strip())
        if whole:
            yield start, " ".join(parts).strip()
            parts = []
    if parts:
        yield start, " ".join(parts).strip()
