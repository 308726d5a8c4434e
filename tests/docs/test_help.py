"""--help of every verb and tool works, and its own parser understands its examples."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from fastreid_clip3d.cli import VERBS
from fastreid_clip3d.config_loading import load_config
from tests.conftest import REPOSITORY
from tests.docs.in_process import parse_only
from tests.docs.steps import launched_by
from tests.docs.tool_help import examples_of, help_of

TOOLS = [f"tools/{name}.py" for name in ("benchmark", "demo", "gpu_session", "offline_bundle", "reproduce")]
TOOLS += [f"tools/assets/{name}.py" for name in ("build_body_models", "train_teacher")]
TOOLS += [f"tools/study/{name}.py" for name in ("leakage", "loss_weights")]


@pytest.mark.parametrize("command", [*(f"clip3d {verb}" for verb in VERBS), *TOOLS])
def test_help_has_examples_that_the_parser_understands(command: str) -> None:
    examples = examples_of(help_of(*command.split()))
    assert any(command in example for example in examples), f"--help of {command} has no examples of it"
    for example in examples:
        words = shlex.split(re.sub(r"^(?:[A-Z_]+=\S+\s+)+", "", example))
        if words[0] == "torchrun":
            from torch.distributed.run import get_args_parser

            words = launched_by(get_args_parser().parse_args(words[1:]))
        words = words[1:] if words[0] == "python" else words
        assert words[0] == "clip3d" or (REPOSITORY / words[0]).is_file(), example
        try:
            check_keys(parse_only(words, REPOSITORY))
        except SystemExit as ended:  # an example may be of --help
            assert not ended.code, f"--help of {command}: {words[:2]} does not understand its example: {example}"


def test_train_net_has_the_help_of_train() -> None:
    assert help_of("tools/train_net.py") == help_of("clip3d", "train")


def check_keys(arguments: argparse.Namespace) -> None:
    """Config files of an example exist, and its KEY VALUE pairs are keys."""
    options = getattr(arguments, "opts", None) or getattr(arguments, "options", None) or []
    config_file = getattr(arguments, "config_file", "")
    if options or config_file:
        own = REPOSITORY / config_file
        load_config(str(own) if config_file and own.is_file() else config_file, options)


def test_a_wrong_example_is_noticed() -> None:
    text = (
        "usage: tool\n\nexamples:\n  # a comment\n"
        "  FASTREID_DATASETS=data clip3d evaluate --features a.npz \\\n"
        "      --protocols CC      two spaces: words\n"
        "  clip3d evaluate --feature-files a.npz\n\nexit code: 0\n"
    )
    right, wrong = examples_of(text)
    assert right == "FASTREID_DATASETS=data clip3d evaluate --features a.npz --protocols CC"
    arguments = parse_only(shlex.split(right)[1:], REPOSITORY)
    assert arguments.features == "a.npz" and arguments.protocols == ["CC"]
    with pytest.raises(SystemExit):
        parse_only(shlex.split(wrong), REPOSITORY)
    with pytest.raises(Exception, match="MODEL.DEVIC"):
        check_keys(argparse.Namespace(opts=["MODEL.DEVIC", "cpu"], config_file="configs/CLIP3D/celeb.yml"))
    assert not Path("a.npz").exists()
