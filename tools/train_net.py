#!/usr/bin/env python
"""Trains and evaluates a fast-reid model, CLIP3DReID included, from one config file."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # train and evaluate the method on Celeb-reID, as in the paper
  python tools/train_net.py --config-file configs/CLIP3D/celeb.yml

  # the same on the rendered benchmark and a laptop; KEY VALUE pairs change any key
  python tools/train_net.py --config-file configs/CLIP3D/synthcc.yml MODEL.DEVICE cpu SOLVER.MAX_EPOCH 4

  # go on after an interruption; evaluate a trained model
  python tools/train_net.py --config-file configs/CLIP3D/celeb.yml --resume
  python tools/train_net.py --config-file configs/CLIP3D/celeb.yml --eval-only MODEL.WEIGHTS logs/celeb/model_final.pth

  # four GPUs of this machine
  python tools/train_net.py --config-file configs/CLIP3D/celeb.yml --num-gpus 4
  torchrun --nproc-per-node 4 tools/train_net.py --config-file configs/CLIP3D/celeb.yml
"""


def parse_arguments() -> argparse.Namespace:
    """fast-reid's own flags."""
    from fastreid.engine import default_argument_parser

    from fastreid_clip3d import engine  # noqa: F401  (compat before fast-reid)

    parser = default_argument_parser()
    parser.description = __doc__
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser.parse_args()


def train_or_test(arguments: argparse.Namespace) -> object:
    """One process of the job."""
    from fastreid_clip3d.engine.run import run

    return run(arguments)


def main() -> None:
    from fastreid_clip3d.engine.launch import run_processes

    run_processes(train_or_test, parse_arguments())


if __name__ == "__main__":
    run_tool(main)
