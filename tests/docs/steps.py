"""Takes the steps of one document in a world of its own: commands are run, or checked where they cannot be."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastreid_clip3d.cli import VERBS
from tests.conftest import REPOSITORY
from tests.docs.commands import Command, PythonBlock
from tests.docs.in_process import as_in_a_shell, parse_only, run_tool
from tests.docs.stand_ins import PYTHON_RULES, RULES

ASSIGNMENT = re.compile(r"([A-Z_][A-Z0-9_]*)=(\S*)\s+")
WRITTEN = ("--output", "--json", "--sheet", "--plot", "--html", "--per-query", "--markdown")
TENSORBOARD_OPTIONS = {"--logdir", "--port", "--bind_all", "--host", "--samples_per_plugin"}
PLACES = ((r"^/path/to/datasets\b", "datasets"), (r"^/data/reid\b", "datasets"), (r"^/path/to/", ""))
"""Paths of an imaginary reader, and what they are in the world."""


class Reader:
    """Follows a document step by step; exported variables and Python names last until its end.

    A step that does not do what the document says fails the test with an ``AssertionError`` that names its line.
    """

    def __init__(self, world: Path) -> None:
        self.world = world
        self.environment: dict[str, str] = {}
        self.names: dict[str, Any] = {"__name__": "documented"}

    def take(self, step: Command | PythonBlock) -> None:
        print(f"\n=== {step}", flush=True)
        if isinstance(step, PythonBlock):
            self.execute(step)
            return
        text, environment = step.text, dict(self.environment)
        while assignment := ASSIGNMENT.match(text):
            environment[assignment[1]] = self._at_home(assignment[2])
            text = text[assignment.end() :]
        words = self.expand(step, text, environment)
        program = {
            "clip3d": self.tool, "python": self.python, "torchrun": self.torchrun, "tensorboard": self.tensorboard,
            "make": self.make, "pip": self.pip, "export": self.export, "source": self.source, "chromium": self.browser,
        }.get(words[0])  # fmt: skip
        assert program, f"{step}: {words[0]} is no program that tests/docs knows how to run or to check"
        program(step, words, environment)

    def expand(self, step: Command, text: str, environment: dict[str, str]) -> list[str]:
        """The words of a command as a shell hands them over: braces, globs, variables and ~ expanded."""
        tokens = shlex.shlex(text, posix=True, punctuation_chars=True)
        operators = [token for token in tokens if set(token) <= set("();<>|&")]
        assert not operators, f"{step}: one command without {operators[0]}, please: each is run by itself"
        variables = {**environment, "HOME": "home", "PATH": "/usr/bin:/bin"}
        words = subprocess.run(
            ["bash", "-c", rf"printf '%s\0' {text}"], cwd=self.world, env=variables, capture_output=True, check=True
        ).stdout
        return [self._at_home(word) for word in words.decode().split("\0")[:-1]]

    def _at_home(self, word: str) -> str:
        for pattern, place in PLACES:
            word = re.sub(pattern, place, word)
        return word

    def execute(self, block: PythonBlock) -> None:
        code = block.code
        for pattern, replacement, _ in PYTHON_RULES:
            code = re.sub(pattern, replacement, code)
        with as_in_a_shell(self.world, self.environment):
            exec(compile(code, f"{block.document}:{block.line}", "exec"), self.names)

    def python(self, step: Command, words: list[str], environment: dict[str, str]) -> None:
        if words[1] == "-c":
            with as_in_a_shell(self.world, environment):
                exec(compile(words[2], str(step), "exec"), {"__name__": "__main__"})
            return
        if words[1:3] == ["-m", "fastreid_clip3d"]:
            self.tool(step, ["clip3d", *words[3:]], environment)
            return
        if words[1] == "-m":
            assert importlib.util.find_spec(words[2]), f"{step}: there is no module {words[2]}"
            return
        self.tool(step, words[1:], environment)

    def tool(self, step: Command, words: list[str], environment: dict[str, str]) -> None:
        """A verb or a tool: first its parser alone with the documented words, then the whole with stand-ins."""
        if words[0] == "clip3d":
            assert words[1] in VERBS or words[1].startswith("-"), f"{step}: clip3d has no verb {words[1]}"
        else:
            assert (REPOSITORY / words[0]).is_file(), f"{step}: there is no {words[0]}"
        help_only = "--help" in words or "--version" in words
        try:
            parse_only(words, self.world)
        except SystemExit as ended:
            assert help_only and not ended.code, f"{step}: refused by the parser of {' '.join(words[:2])}"
        rules = [rule for rule in RULES if rule.fits(words)]
        if help_only:
            return
        documented = list(words)
        patches: dict[str, Any] = {}
        exit_codes = {0}
        with as_in_a_shell(self.world, environment):
            for rule in rules:
                words = rule.apply(words)
                made: dict[str, Callable[[], Any]] = dict(rule.made_patches)
                patches |= {**rule.patches, **{name: make() for name, make in made.items()}}
                exit_codes |= set(rule.exit_codes)
        if words != documented:
            print(f"    as: {shlex.join(words)}", flush=True)
        code = run_tool(words, self.world, environment, patches)
        assert code in exit_codes, f"{step}: ended with code {code}, run as {shlex.join(words)}"
        for place, word in enumerate(documented[:-1]):
            if word in WRITTEN and documented[place + 1] != "-":
                written = self.world / documented[place + 1]
                assert written.exists(), f"{step}: did not write {documented[place + 1]}"

    def torchrun(self, step: Command, words: list[str], environment: dict[str, str]) -> None:
        """torchrun's own options by its parser; then the verb as the only process, or each rank in turn.

        Processes that meet are tested in tests/engine/test_two_processes.py.
        """
        from torch.distributed.run import get_args_parser

        launch = get_args_parser().parse_args(words[1:])
        tool = launched_by(launch)
        if tool[:2] != ["clip3d", "cache-teacher"]:
            self.tool(step, tool, environment)
            return
        processes = 2 if int(launch.nproc_per_node) > 1 else 1
        for rank in range(processes):
            self.tool(step, tool, {**environment, "RANK": str(rank), "WORLD_SIZE": str(processes)})

    def tensorboard(self, step: Command, words: list[str], environment: dict[str, str]) -> None:
        options = {word.split("=")[0] for word in words[1:] if word.startswith("--")}
        assert "--logdir" in words and options <= TENSORBOARD_OPTIONS, f"{step}: unknown options of tensorboard"
        folder = self.world / words[words.index("--logdir") + 1]
        assert list(folder.rglob("events.out.tfevents*")), f"{step}: no events of TensorBoard in {folder.name}"
        assert importlib.util.find_spec("tensorboard"), f"{step}: tensorboard is not installed"

    def make(self, step: Command, words: list[str], environment: dict[str, str]) -> None:
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        for word in words[1:]:
            pattern = rf"^{word.split('=')[0]} *\??:?= " if "=" in word else rf"^{re.escape(word)}:"
            assert re.search(pattern, makefile, re.MULTILINE), f"{step}: the Makefile has no {word}"

    def pip(self, step: Command, words: list[str], environment: dict[str, str]) -> None:
        """Pinned packages have the version that is tested here, others are installed; files are there."""
        assert words[1] == "install", f"{step}: only pip install is checked"
        arguments = iter(words[2:])
        for word in arguments:
            if word in ("-e", "-r", "--requirement", "--editable"):
                target = next(arguments).split("[")[0]
                needed = REPOSITORY / target / "setup.py" if word in ("-e", "--editable") else REPOSITORY / target
                assert needed.is_file(), f"{step}: there is no {needed.name} in {target}"
            elif not word.startswith("-"):
                name, _, version = word.partition("==")
                name = name.split("[")[0]
                locked = "".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("requirements*.lock"))
                wanted = rf"^{re.escape(name)}=={re.escape(version)}\b" if version else rf"^{re.escape(name)}=="
                known = re.search(wanted, locked, re.MULTILINE | re.IGNORECASE)
                assert known or (not version and _is_installed(name)), f"{step}: {word} is not what make setup installs"

    def export(self, step: Command, words: list[str], environment: dict[str, str]) -> None:
        """The variable is read by the package, by torch or by Python, and lasts until the document's end."""
        for word in words[1:]:
            name, _, value = word.partition("=")
            known = name.startswith(("OMP_", "CUDA_", "NCCL_", "GLOO_", "HF_", "TORCH_")) or any(
                re.search(rf"\b{name}\b", path.read_text(encoding="utf-8"))
                for path in (REPOSITORY / "fastreid_clip3d").rglob("*.py")
            )
            assert known, f"{step}: nothing reads {name}"
            self.environment[name] = self._at_home(value)

    def source(self, step: Command, words: list[str], environment: dict[str, str]) -> None:
        folder = re.search(r"^VENV := (\S+)$", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words[1:] == [f"{folder[1]}/bin/activate"], f"{step}: make setup makes {folder[1]}/bin/activate"

    def browser(self, step: Command, words: list[str], environment: dict[str, str]) -> None:
        """A browser is not installed by make setup; the page that it is to show is there."""
        for word in words[1:]:
            if word.startswith("file://"):
                assert Path(word.removeprefix("file://")).is_file(), f"{step}: there is no {word}"


def launched_by(launch: argparse.Namespace) -> list[str]:
    """What torchrun starts, as words: ``-m fastreid_clip3d VERB`` is ``clip3d VERB``."""
    if launch.module:
        assert launch.training_script == "fastreid_clip3d", launch.training_script
        return ["clip3d", *launch.training_script_args]
    return [launch.training_script, *launch.training_script_args]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
