#!/usr/bin/env python
"""Renders a small dataset, trains a student without and with CLIP3DReID's guidance, and compares the two."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from shlex import quote

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.cli.run_options import not_negative, positive
from fastreid_clip3d.common.dataset_root import VARIABLE
from fastreid_clip3d.errors import run_tool

EXAMPLES = """\
examples:
  # everything, about 10 minutes on two cores; a second run reuses what is there
  python tools/demo.py

  # another seed, in a folder of its own
  python tools/demo.py --seed 1 --output logs/demo-seed1

  # only the data and the pretrained weights, for configs/CLIP3D/synthcc.yml
  python tools/demo.py --prepare
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("datasets/demo"), help="folder for the data (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("logs/demo"), help="folder for the runs (default: %(default)s)"
    )
    parser.add_argument("--seed", type=not_negative, default=0, help="random seed of both runs (default: 0)")
    parser.add_argument(
        "--epochs", type=not_negative, default=0, help="passes over the real images (default: those of the configs)"
    )
    parser.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, help="rendering processes (default: one per core)"
    )
    parser.add_argument(
        "--prepare", action="store_true", help="render the data, write the pretrained weights, and stop"
    )
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="config keys for both runs")
    arguments = parser.parse_args()

    os.environ[VARIABLE] = str(arguments.data.absolute())  # for the readers of datasets in this process
    from tools.study.demo import Demo
    from tools.study.demo.scores import print_table

    demo = Demo(
        arguments.data.absolute(),
        arguments.output.absolute(),
        arguments.seed,
        arguments.epochs,
        arguments.workers,
        arguments.options,
    )
    if arguments.prepare:
        demo.prepare()
        print(
            f"\nThe data is ready. Train on it with:  FASTREID_DATASETS={quote(str(arguments.data))} "
            "python tools/train_net.py --config-file configs/CLIP3D/synthcc.yml"
        )
        return
    print_table(demo.run())
    print(demo.learned)
    output = arguments.output
    print(f"Checkpoints and TensorBoard logs: {output}/baseline, {output}/clip3d (tensorboard --logdir {output})")
    print(f"The table as JSON: {output}/results.json")
    print(f"Queries with the best matches of both models: {output}/ranking.png")
    print("\nFour commands that use the trained model:")
    for title, command in next_commands(arguments.data, output):
        print(f"  # {title}\n  {command}")


def next_commands(data: Path, output: Path) -> list[tuple[str, str]]:
    """Four uses of the trained model: a title and a command that runs on the files of the demo."""
    images = data / "SynthCC-tiny"
    query = quote(str(min((images / "query").glob("*.jpg"))))
    model, baseline, gallery = (
        quote(str(path)) for path in (output / "clip3d", output / "baseline", images / "gallery")
    )
    page, student, reliance = (quote(str(output / name)) for name in ("found.html", "student.onnx", "reliance"))
    datasets = f"FASTREID_DATASETS={quote(str(data))}"
    return [
        (
            "the ten most similar people in a folder of pictures",
            f"clip3d search --model {model} --query {query} --gallery {gallery} --top 10 --html {page}",
        ),
        (
            "the student as one ONNX file, checked against PyTorch",
            f"clip3d export --model {model} --output {student}",
        ),
        (
            "skin and hair told apart from body shape, on a second rendering of the people (about three minutes)",
            f"{datasets} clip3d reliance --model {model} --output {reliance}",
        ),
        (
            "curves, scores and pictures of both runs on one page",
            f"{datasets} clip3d report {model} --compare {baseline}",
        ),
    ]


if __name__ == "__main__":
    run_tool(main)
