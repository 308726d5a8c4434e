"""The command ``clip3d VERB``: one module per verb, imported when its verb is asked for.

A verb's module has ``EXAMPLES`` (shown below its help), ``add_arguments(parser)`` and ``run(arguments) -> exit code``.
With ``NEEDS_FASTREID = False`` it also runs where fast-reid is missing.
At its top it imports nothing heavy, so that ``--help`` answers at once; torch and fast-reid come with ``run``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from fastreid_clip3d.common.host_memory import keep_memory
from fastreid_clip3d.common.near_names import did_you_mean
from fastreid_clip3d.errors import ClearError, run_tool
from fastreid_clip3d.registration import COMMAND, register

VERBS = {
    "train": "trains, resumes or evaluates a model from one config file",
    "evaluate": "scores saved features, or a model on a dataset, by any protocol",
    "cache-teacher": "computes the teacher's answers for all training images, once",
    "render-bodies": "renders the synthetic half of a batch: grey bodies with known shapes",
    "render-people": "renders SynthCC, people who change their clothes",
    "extract": "computes the features of your own pictures into one file",
    "crops": "cuts people out of videos and photos into folders, by boxes from a file or a detector",
    "search": "finds people in a folder of pictures, by a picture or by phrases",
    "calibrate": "measures which similarity means the same person",
    "reliance": "measures what a model matches: clothes, skin and hair, or body shape",
    "export": "writes a student as one file: ONNX, TorchScript or torch.export",
    "visualize": "draws transport plans, bodies, rankings or embeddings",
    "label": "shows the teacher's 16 body-shape phrases of pictures, or a dataset's label statistics",
    "describe": "measures a body and names its 16 phrases",
    "make-csv": "describes a folder of pictures as a CSV file to train and test on",
    "check-model": "tries a model of any source and prints what it takes and gives",
    "check-dataset": "checks a dataset on disk without training",
    "blur-faces": "copies a dataset with blurred faces",
    "config-keys": "prints every config key with its default and meaning",
    "doctor": "prints what this machine has and lacks: versions, devices, libraries, folders",
    "push": "uploads a run to the Hugging Face hub, with a model card",
    "report": "writes one page about a run: scores, curves, pictures, settings",
}
"""Verb -> what it does, in the order of the help page."""


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Runs the command and ends the process with the verb's exit code."""
    words = sys.argv[1:] if words is None else list(words)
    keep_memory()
    run_tool(lambda: run_verb(words))


def run_verb(words: Sequence[str]) -> int:
    """Runs ``clip3d WORDS`` in this process and returns its exit code: 0 for success, 1 as the verb's help says.

    Raises:
        ClearError: there is no such verb, or the verb cannot do its work. SystemExit: the parser refuses the words.
    """
    if words and words[0] in VERBS:
        verb = importlib.import_module(f"{__name__}.{words[0].replace('-', '_')}")
        arguments = verb_parser(words[0]).parse_args(list(words[1:]))
        if getattr(verb, "NEEDS_FASTREID", True):
            register()
        if not getattr(arguments, "allow_imports", False):
            return verb.run(arguments)
        from fastreid_clip3d.config_loading import allowed_imports

        with allowed_imports():
            return verb.run(arguments)
    if words and not words[0].startswith("-"):
        raise ClearError(f"{COMMAND} has no verb {words[0]!r}. {did_you_mean(words[0], VERBS)}")
    _overview().parse_args(list(words))
    return 0


def verb_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one verb."""
    verb = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"{COMMAND} {name}",
        description=verb.__doc__,
        epilog=verb.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_arguments(parser)
    return parser


def _overview() -> argparse.ArgumentParser:
    """The parser of ``clip3d`` alone: it prints the verbs and the version."""
    from fastreid_clip3d import __version__

    width = max(map(len, VERBS))
    table = "\n".join(f"  {name:<{width}}  {purpose}" for name, purpose in VERBS.items())
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="CLIP3DReID as a plug-in to fast-reid: person re-identification that learns body shape.",
        epilog=f"verbs:\n{table}\n\n`{COMMAND} VERB --help` has examples of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastreid_clip3d {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="one of the verbs below")
    return parser
