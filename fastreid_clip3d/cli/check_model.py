"""Loads a model of any source, tries it, and prints what it takes and gives."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.run_options import add_device, add_json, add_model, model_source

EXAMPLES = """\
examples:
  clip3d check-model --model logs/demo/clip3d
  clip3d check-model --model open_clip:ViT-B-32/openai

  # a network of another tool: try the settings, then keep them in osnet.yaml, where every verb reads them
  clip3d check-model --model osnet.onnx --size 256 128
  clip3d check-model --model osnet.onnx --size 256 128 --channels BGR --range 255 --mean 0 0 0 --std 1 1 1 \\
      --save-settings

Two different pictures go through the model. It is refused where their vectors are equal, not finite, or depend on the
other pictures of a batch. Colours in the wrong order cannot be noticed: only a score on a dataset shows them.
exit code: 0 the model works, 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    add_model(parser)
    parser.add_argument(
        "--save-settings", action="store_true", help="write size, mean, std, channels and range beside an ONNX or "
        "TorchScript file of another tool, model.yaml beside model.onnx",
    )  # fmt: skip
    add_json(parser, "the description")
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the description and writes what the flags name."""
    from fastreid_clip3d.common.json_file import check_json, write_json
    from fastreid_clip3d.inference.check import check_model, save_settings

    check_json(arguments.json)
    model = model_source(arguments).load(arguments.device)
    description = check_model(model)
    if arguments.json != "-":
        for name, value in description.items():
            print(f"{name:<14}{' '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}")
    if arguments.save_settings:
        written = save_settings(model)
        if arguments.json != "-":
            print(f"written: {written}")
    if arguments.json:
        write_json(arguments.json, description)
    return 0
