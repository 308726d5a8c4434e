"""--help of every tool works, and its examples are understood by the tool's own parser."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from fastreid_clip3d.config_loading import load_config
from tests.conftest import REPOSITORY
from tests.docs.in_process import parse_only
from tests.docs.tool_help import examples_of, help_of

TOOLS = sorted(f"tools/{path.name}" for path in (REPOSITORY / "tools").glob("*.py"))


@pytest.mark.parametrize("tool", TOOLS)
def test_help_has_examples_that_the_parser_understands(tool: str) -> None:
    examples = examples_of(help_of(tool))
    assert any(tool in example for example in examples), f"--help of {tool} has no examples: section with commands"
    for example in examples:
        words = shlex.split(re.sub(r"^(?:[A-Z_]+=\S+\s+)+", "", example))
        if words[0] == "torchrun":
            from torch.distributed.run import get_args_parser

            launch = get_args_parser().parse_args(words[1:])
            words = ["python", launch.training_script, *launch.training_script_args]
        assert (REPOSITORY / words[1]).is_file(), example
        try:
            check_keys(parse_only(words[1:], REPOSITORY))
        except SystemExit as ended:  # an example may ask for --help
            assert not ended.code, f"--help of {tool}: {words[1]} does not understand its example: {example}"


def check_keys(arguments: argparse.Namespace) -> None:
    """Config files of an example exist, and its KEY VALUE pairs are keys."""
    options = getattr(arguments, "opts", None) or getattr(arguments, "options", None) or []
    config_file = getattr(arguments, "config_file", "")
    if options or config_file:
        load_config(str(REPOSITORY / config_file) if config_file else "", options)


def test_a_wrong_example_is_noticed() -> None:
    text = (
        "usage: tool\n\nexamples:\n  # a comment\n"
        "  FASTREID_DATASETS=data python tools/evaluate.py --features a.npz \\\n"
        "      --protocols CC      two spaces: words\n"
        "  python tools/evaluate.py --feature-files a.npz\n\nexit code: 0\n"
    )
    right, wrong = examples_of(text)
    assert right == "FASTREID_DATASETS=data python tools/evaluate.py --features a.npz --protocols CC"
    arguments = parse_only(shlex.split(right)[2:], REPOSITORY)
    assert arguments.features == "a.npz" and arguments.protocols == ["CC"]
    with pytest.raises(SystemExit):
        parse_only(shlex.split(wrong)[1:], REPOSITORY)
    with pytest.raises(Exception, match="MODEL.DEVIC"):
        check_keys(argparse.Namespace(opts=["MODEL.DEVIC", "cpu"], config_file="configs/CLIP3D/celeb.yml"))
    assert not Path("a.npz").exists()
