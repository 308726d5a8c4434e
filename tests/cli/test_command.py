"""The command `clip3d`: which verbs there are, what their help imports, and what runs before a verb."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fastreid.engine import default_argument_parser

from fastreid_clip3d import __version__, cli
from fastreid_clip3d.cli import describe, train
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.registration import started_as_command
from tests.conftest import REPOSITORY

OURS = "fastreid_clip3d"
AS_COMMAND = """
import json, runpy, sys
sys.orig_argv[1:] = ["-m", *sys.argv[1:]]  # as Python itself would have been started
sys.argv[:] = sys.argv[1:]
before = set(sys.modules)
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    names = {name.partition(".")[0] for name in set(sys.modules) - before}
    print(json.dumps(sorted(names - set(sys.stdlib_module_names) - {"fastreid_clip3d"})), file=sys.stderr)
"""


def run_python(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


def heavy_modules(*words: str) -> list[str]:
    """Top-level modules outside the standard library that ``python -m fastreid_clip3d WORDS`` imports, without ours."""
    return json.loads(run_python("-c", AS_COMMAND, OURS, *words).stderr.splitlines()[-1])


@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_help_imports_the_standard_library_and_this_package_only(verb: str) -> None:
    words = [verb] if verb else []
    found = heavy_modules(*words, "--help")
    assert not found, f"clip3d {verb} --help imports {json.dumps(found)}"


def test_the_check_of_imports_finds_heavy_modules() -> None:
    assert {"fastreid", "numpy", "torch"} <= set(heavy_modules("check-dataset", "--list"))


def test_every_verb_is_a_module_and_every_module_a_verb() -> None:
    names = {path.stem for path in Path(cli.__file__).parent.glob("*.py")} - {"__init__"}
    modules = {name: importlib.import_module(f"{OURS}.cli.{name}") for name in names}
    verbs = {name.replace("_", "-") for name, module in modules.items() if hasattr(module, "run")}
    assert verbs == set(cli.VERBS)
    for verb in verbs:
        assert {"EXAMPLES", "add_arguments", "run"} <= set(vars(modules[verb.replace("-", "_")])), verb


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_has_a_description_and_examples_of_the_verb(verb: str) -> None:
    text = cli.verb_parser(verb).format_help()
    assert text.startswith(f"usage: clip3d {verb} ") and f"\n  clip3d {verb} " in text.partition("examples:")[2]
    description = text.split("\n\n")[1]
    assert description[0].isupper() and len(description) > 30


def flags_of(parser: argparse.ArgumentParser) -> dict[str, tuple]:
    """Destination -> everything that decides how argparse reads a flag."""
    return {
        action.dest: (type(action), action.option_strings, action.nargs, action.type, action.default, action.choices)
        for action in parser._actions
    }


def test_train_has_the_flags_of_fast_reid() -> None:
    theirs = flags_of(default_argument_parser())
    assert len(theirs) > 7 and flags_of(cli.verb_parser("train")) == theirs


@pytest.mark.parametrize(
    "change", [{"default": 2}, {"type": str}, {"dest": "gpus"}, {"option_strings": ["--gpus"]}], ids=str
)
def test_another_flag_of_train_is_noticed(change: dict) -> None:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    (action,) = (action for action in parser._actions if action.dest == "num_gpus")
    vars(action).update(change)
    assert flags_of(parser) != flags_of(default_argument_parser())


@pytest.mark.parametrize(("word", "near"), [("serch", "search"), ("evaluate-model", "evaluate"), ("Train", "train")])
def test_an_unknown_verb_names_the_nearest_one(word: str, near: str) -> None:
    with pytest.raises(ClearError, match=f"no verb '{word}'. Did you mean {near}"):
        cli.run_verb([word])


def test_a_verb_like_no_other_gets_the_list_of_all(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["xyz"])
    words = capsys.readouterr().err
    assert ended.value.code == 2 and words.startswith("error: ") and "Did you mean" not in words
    assert all(verb in words for verb in cli.VERBS)


def test_the_module_is_the_command() -> None:
    assert run_python("-m", OURS, "--version").stdout == f"{OURS} {__version__}\n"
    refused = run_python("-m", OURS, "check-dataset")
    assert (refused.returncode, refused.stderr) == (2, "error: name a dataset, or use --list\n")


def test_a_verb_runs_after_registration_and_gives_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(cli, "register", lambda: order.append("registered"))
    monkeypatch.setattr(describe, "run", lambda arguments: order.append(arguments.gender) or 7)
    assert cli.run_verb(["describe", "--gender", "male"]) == 7 and order == ["registered", "male"]


def test_help_and_refused_words_end_before_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "register", lambda: pytest.fail("registered"))
    for words, code in ((["--help"], 0), (["search", "--help"], 0), (["search", "--galery", "x"], 2), ([], 2)):
        with pytest.raises(SystemExit) as ended:
            cli.run_verb(words)
        assert ended.value.code == code


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("python -m fastreid_clip3d train", True),
        ("python -u -X dev -W ignore -m fastreid_clip3d train", True),
        ("python /opt/venv/bin/clip3d train", True),
        (r"python clip3d.exe train", True),
        ("python -c pass -m fastreid_clip3d", False),
        ("python -m pytest fastreid_clip3d", False),
        ("python train.py clip3d", False),
        ("python", False),
    ],
)
def test_only_the_command_registers_later(monkeypatch: pytest.MonkeyPatch, words: str, expected: bool) -> None:
    monkeypatch.setattr(sys, "orig_argv", words.split())
    assert started_as_command() is expected
