#!/usr/bin/env python
"""Trains the teacher that ships with the package: a small open_clip model, on rendered people with known bodies."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastreid_clip3d.common.host_memory import keep_memory
from fastreid_clip3d.errors import run_tool

EXAMPLES = """\
examples:
  # the recipe of the shipped teacher, for a GPU (docs/teacher.md says how long); it continues after a stop
  python tools/assets/train_teacher.py --output logs/teacher --device cuda --workers 16

  # one that two CPU cores make in an hour, with labels right in 61 instead of 68 %
  python tools/assets/train_teacher.py --output logs/small --people 12800 --grey 8000 --steps 850 --batch 64 \\
      --learning-rate 0.001

  # use it
  clip3d label person.jpg --teacher local-dir:logs/teacher/model

  # copy it into the package
  python tools/assets/train_teacher.py --output logs/teacher --install

  # all steps in a few minutes, with a poor teacher
  python tools/assets/train_teacher.py --output logs/quick --people 200 --grey 100 --steps 60 --batch 64 --held-out 50

A config uses the result with MODEL.TEACHER.NAME local-dir:OUTPUT/model. OUTPUT/model/report.json holds the accuracies.
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", required=True, help="folder of the pictures, the training state and the finished model"
    )
    parser.add_argument("--people", type=int, help="clothed people, two pictures each (default: 51200)")
    parser.add_argument("--steps", type=int, help="optimiser steps, only with --people (default: 951)")
    parser.add_argument(
        "--views",
        type=int,
        help="precomputed views per picture, only with --people; 0: new views in each step (default: 0)",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        help="learning rate of the visual trunk, only with --people (default: 0.002)",
    )
    parser.add_argument("--grey", type=int, default=24000, help="grey bodies, one picture each (default: 24000)")
    parser.add_argument("--held-out", type=int, default=384, help="people of each kind to measure on (default: 384)")
    parser.add_argument("--batch", type=int, default=384, help="pictures per step (default: 384)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of pictures and training (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="rendering processes (default: 2)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--visual-weights",
        default="",
        help="state dict that the visual tower starts from (default: ImageNet weights from a package)",
    )
    parser.add_argument("--install", action="store_true", help="copy the finished model over the package's own")
    parsed = parser.parse_args(arguments)
    for name in ("steps", "batch", "held_out", "workers"):
        if getattr(parsed, name) is not None and getattr(parsed, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    for name in ("steps", "views", "learning_rate"):
        if getattr(parsed, name) is not None and parsed.people is None:
            flag = f"--{name.replace('_', '-')}"
            parser.error(f"{flag} needs --people; without both, the recipe of the shipped teacher runs")
    if min(parsed.grey, parsed.views or 0, parsed.people or 0) < 0 or parsed.people == parsed.grey == 0:
        parser.error("--people, --grey and --views must not be negative; --people and --grey must not both be 0")
    if parsed.learning_rate is not None and parsed.learning_rate <= 0:
        parser.error("--learning-rate must be above 0")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    from fastreid_clip3d.common.devices import find_device
    from tools.assets.teacher.recipe import Stage, TeacherRecipe, install, make_teacher

    parsed = parse_arguments(arguments)
    find_device(parsed.device)
    recipe = TeacherRecipe(grey=parsed.grey, held_out=parsed.held_out, batch=parsed.batch, seed=parsed.seed)
    if parsed.people is not None:
        steps, rate = parsed.steps or 951, parsed.learning_rate or 2e-3
        stage = Stage(parsed.people, steps, parsed.views or 0, rate, min(100, steps // 5))
        recipe = dataclasses.replace(recipe, stages=(stage,))
    made = make_teacher(recipe, parsed.output, parsed.visual_weights, parsed.workers, parsed.device)
    print(made.report.table())
    print(json.dumps({"model": str(made.folder), "seconds": made.seconds, "images": made.report.images}))
    if parsed.install:
        print(f"installed in {install(made.folder)}")
    return 0


if __name__ == "__main__":
    keep_memory()
    run_tool(main)
