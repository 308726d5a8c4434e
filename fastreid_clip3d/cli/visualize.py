"""Draws what a run learned: transport plans, bodies, ranking lists, embeddings, why two pictures are alike."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from inspect import signature
from pathlib import Path

from fastreid_clip3d.cli.run_options import (
    add_allow_imports,
    add_config,
    add_data,
    add_device,
    add_model,
    model_source,
    positive,
)

EXAMPLES = """\
examples:
  # where do phrases go in an image? (Figure 3 of the paper)
  clip3d visualize transport --model logs/demo/clip3d --images people/ --phrases "tall" "long legs" muscular

  # bodies predicted from f_id beside the true ones (Figure 5), on bodies that no training has seen
  clip3d render-bodies --output held_out --bodies 12 --poses-per-body 1 --seed 1
  clip3d visualize bodies --model logs/demo/clip3d --bodies held_out
  clip3d visualize bodies --model logs/demo/clip3d --images people/*.jpg

  # the same queries answered by two models; runs need TEST.EVALUATION.SAVE_FEATURES True
  clip3d visualize ranking --models logs/demo/baseline logs/demo/clip3d --protocol CC

  # the queries with the lowest average precision; a query of your choice
  clip3d visualize ranking --models logs/demo/clip3d --sort worst
  clip3d visualize ranking --models logs/demo/clip3d --sort 0400_o1_c5_00.jpg

  # which patches make two pictures alike
  clip3d visualize alike a.jpg b.jpg --model logs/demo/clip3d
  clip3d visualize alike a.jpg b.jpg --model open_clip:embedded

  # a dozen people's features on a plane, by person and by clothes
  clip3d visualize embedding --model logs/demo/clip3d --method tsne

A sub-command's --help has all its options. docs/pictures.md says how to read each picture.
exit code: 0 drawn, 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{transport,bodies,ranking,alike,embedding}"
    )
    _add_transport(commands)
    _add_bodies(commands)
    _add_ranking(commands)
    _add_alike(commands)
    _add_embedding(commands)


def _command(commands: argparse._SubParsersAction, name: str, help: str, example: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example:\n  clip3d visualize {name} {example}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--output", default=f"{name}.png", metavar="FILE", help=f"default: {name}.png")
    return command


def _add_transport(commands: argparse._SubParsersAction) -> None:
    command = _command(
        commands,
        "transport",
        "where the transport plan sends a phrase, as a map over the image",
        '--model logs/demo/clip3d --images a.jpg b.jpg --phrases "tall" "short legs"',
    )
    command.add_argument("--model", required=True, metavar="RUN", help="run folder or checkpoint of a CLIP3DReID run")
    add_config(command)
    add_allow_imports(command)
    command.add_argument("--images", nargs="+", required=True, metavar="IMAGE", help="files, folders, globs, lists")
    command.add_argument("--phrases", nargs="+", required=True, metavar="PHRASE", help="some of the paper's 32 phrases")
    command.add_argument("--most", type=positive, default=6, metavar="N", help="images drawn at most (default: 6)")
    add_device(command)


def _add_bodies(commands: argparse._SubParsersAction) -> None:
    command = _command(
        commands,
        "bodies",
        "bodies predicted from f_id, beside the true ones where known",
        "--model logs/demo/clip3d --bodies datasets/SyntheticBodies",
    )
    command.add_argument("--model", required=True, metavar="RUN", help="run folder or checkpoint of a CLIP3DReID run")
    add_config(command)
    add_allow_imports(command)
    command.add_argument("--bodies", default="", metavar="FOLDER", help="synthetic bodies from `clip3d render-bodies`")
    command.add_argument("--data", dest="bodies", default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # its older name
    command.add_argument(
        "--images", nargs="+", default=[], metavar="IMAGE", help="images whose true bodies are not known"
    )
    command.add_argument("--most", type=positive, default=8, metavar="N", help="bodies drawn at most (default: 8)")
    command.add_argument("--seed", type=int, default=0, help="seed of the choice of bodies (default: 0)")
    add_device(command)


def _add_ranking(commands: argparse._SubParsersAction) -> None:
    command = _command(
        commands,
        "ranking",
        "queries with the closest gallery images of one or more models",
        "--models logs/demo/baseline logs/demo/clip3d --protocol CC --queries 4",
    )
    command.add_argument("--models", nargs="+", required=True, metavar="RUN", help="run folders or features files")
    command.add_argument("--protocol", default="general", help="general (default), CC, SC or nothing")
    add_data(command, "which test set, where a run has several", "--dataset")
    command.add_argument("--queries", type=positive, default=4, metavar="N", help="people drawn (default: 4)")
    command.add_argument(
        "--sort", nargs="+", default=["random"], metavar="ORDER",
        help="worst or best (by the first model's average precision), random (default), or names of query pictures",
    )  # fmt: skip
    command.add_argument("--top", type=positive, default=8, metavar="N", help="matches shown (default: 8)")
    command.add_argument("--seed", type=int, default=0, help="seed of the choice of queries (default: 0)")


def _add_alike(commands: argparse._SubParsersAction) -> None:
    command = _command(
        commands, "alike", "which patches make two pictures alike for a model", "a.jpg b.jpg --model logs/demo/clip3d"
    )
    command.add_argument("images", nargs=2, metavar="IMAGE", help="the two pictures")
    add_model(command)
    add_device(command)


def _add_embedding(commands: argparse._SubParsersAction) -> None:
    command = _command(
        commands,
        "embedding",
        "a dozen people's features on a plane, by person and by clothes",
        "--model logs/demo/clip3d --method pca --people 8",
    )
    command.add_argument("--model", required=True, metavar="RUN", help="run folder or features file")
    add_data(command, "which test set, where the run has several", "--dataset")
    command.add_argument("--method", choices=("tsne", "pca"), default="tsne", help="default: tsne")
    command.add_argument("--people", type=positive, default=12, metavar="N", help="drawn at random (default: 12)")
    command.add_argument("--seed", type=int, default=0, help="seed of the people and of t-SNE (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    """Draws the picture and prints where it is."""
    from fastreid_clip3d.common.figures import FIGURE_ENDINGS
    from fastreid_clip3d.common.files import check_writable
    from fastreid_clip3d.common.images import IMAGE_ENDINGS
    from fastreid_clip3d.inference.load import ModelSource
    from fastreid_clip3d.visualization import commands

    check_writable(arguments.output, IMAGE_ENDINGS if arguments.command == "ranking" else FIGURE_ENDINGS)
    draw: Callable[..., tuple[Path, str]] = getattr(commands, arguments.command)
    options = {name: value for name, value in vars(arguments).items() if name in signature(draw).parameters}
    if arguments.command == "alike":
        options["model"] = model_source(arguments)
    elif arguments.command in ("transport", "bodies"):
        options["model"] = ModelSource(arguments.model, arguments.config, allow_imports=arguments.allow_imports)
    path, line = draw(**options)
    print(f"{path}: {line}")
    return 0
