"""The flags that several verbs share: one name and one meaning for each."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastreid_clip3d.inference.load import ModelSource


def positive(text: str) -> int:
    """The type of a flag that takes a whole number of 1 or more."""
    return _whole_number(text, 1)


def not_negative(text: str) -> int:
    """The type of a flag that takes a whole number of 0 or more."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of {least} or more")
    return number


def given_flags(arguments: argparse.Namespace, *names: str) -> str:
    """Those of the flags that were given, as the user writes them, for messages; "" where none was.

    A flag counts as given if its value is not the empty one: "", [], None, False or 0.
    """
    return ", ".join(f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name))


def add_allow_imports(parser: argparse.ArgumentParser) -> None:
    """Adds ``--allow-imports``; :func:`fastreid_clip3d.cli.run_verb` acts on it."""
    parser.add_argument(
        "--allow-imports",
        action="store_true",
        help="run code of the model's author: the modules that a run's config names (IMPORTS), or a TorchScript file; "
        "only for models that you trust",
    )


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds ``--model`` for every source of ``load_model``, and the flags that describe it; see :func:`model_source`."""
    parser.add_argument(
        "--model", required=required, default="", metavar="MODEL",
        help="run folder, checkpoint, .onnx file, torchscript:FILE, timm:NAME, open_clip:NAME/TAG, open_clip:embedded "
        "or hf-hub:OWNER/NAME (docs/models.md)",
    )  # fmt: skip
    add_config(parser)
    add_allow_imports(parser)
    group = parser.add_argument_group(
        "what an ONNX or TorchScript file of another tool takes",
        "What is not given is read from the yaml file beside it (model.yaml beside model.onnx); else we assume RGB, "
        "range 1 and ImageNet's mean and std. --size also sets the input of a network of timm.",
    )
    group.add_argument("--size", nargs=2, type=positive, metavar=("HEIGHT", "WIDTH"), help="of its images, in pixels")
    for name in ("mean", "std"):
        group.add_argument(
            f"--{name}", nargs=3, type=float, metavar=("A", "B", "C"), help="per channel, of values in 0..RANGE"
        )
    group.add_argument("--channels", choices=("RGB", "BGR"), help="the order of its colours")
    group.add_argument("--range", type=int, choices=(1, 255), help="the value of a white pixel before mean and std")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds ``--config``."""
    parser.add_argument(
        "--config", default="", metavar="FILE",
        help="config file of a checkpoint, for instance of fast-reid (default: config.yaml beside it)",
    )  # fmt: skip


def model_source(arguments: argparse.Namespace) -> ModelSource:
    """What the flags of :func:`add_model` name."""
    from fastreid_clip3d.inference.image_settings import ImageSettings
    from fastreid_clip3d.inference.load import ModelSource

    size, mean, std = (tuple(values) if values else None for values in (arguments.size, arguments.mean, arguments.std))
    settings = ImageSettings(size, mean, std, arguments.channels, arguments.range)
    return ModelSource(arguments.model, arguments.config, settings, allow_imports=arguments.allow_imports)


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds ``--json [FILE]``; without FILE its value is ``-``, standard output."""
    parser.add_argument(
        "--json", nargs="?", const="-", default="", metavar="FILE",
        help=f"write {what} as json to FILE.json, or without FILE to standard output instead of the text",
    )  # fmt: skip


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Adds ``--batch-size``. argparse takes the older ``--batch`` as its abbreviation."""
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images at once (default: 64)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``; "" is CUDA where there is a device, else the CPU."""
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:N (default: cuda where there is a device)")


def add_root(parser: argparse.ArgumentParser) -> None:
    """Adds ``--root``."""
    parser.add_argument("--root", default="", help="the datasets' folder (default: $FASTREID_DATASETS, or ./datasets)")


def add_data(parser: argparse.ArgumentParser, help: str, *older: str, required: bool = False) -> None:
    """Adds ``--data DATASET``. The older flags of the same meaning are still taken; the help does not show them."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument("--data", default="", metavar="DATASET", help=help)
    for flag in older:
        group.add_argument(flag, dest="data", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
