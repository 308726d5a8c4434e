"""Trains and evaluates a fast-reid model, CLIP3DReID included, from one config file."""

from __future__ import annotations

import argparse
import os
import sys

EXAMPLES = """\
examples:
  # train and evaluate the method on Celeb-reID, as in the paper
  clip3d train --config-file CLIP3D/celeb.yml

  # the same on the rendered benchmark and a laptop; KEY VALUE pairs change any key
  clip3d train --config-file CLIP3D/synthcc.yml MODEL.DEVICE cpu SOLVER.MAX_EPOCH 4

  # go on after an interruption; evaluate a trained model
  clip3d train --config-file CLIP3D/celeb.yml --resume
  clip3d train --config-file CLIP3D/celeb.yml --eval-only MODEL.WEIGHTS logs/celeb/model_final.pth

  # four GPUs of this machine
  clip3d train --config-file CLIP3D/celeb.yml --num-gpus 4
  torchrun --nproc-per-node 4 -m fastreid_clip3d train --config-file CLIP3D/celeb.yml

In a checkout, `python tools/train_net.py` is the same with fast-reid's habits.
A config file is a path, or the name of one that comes with the package.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds fast-reid's own flags."""
    parser.add_argument("--config-file", default="", metavar="FILE", help="path to a config file")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR, if there is one"
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS; no training")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine (default: 1)")
    parser.add_argument("--num-machines", type=int, default=1, help="number of machines (default: 1)")
    parser.add_argument("--machine-rank", type=int, default=0, help="rank of this machine, 0 .. num-machines - 1")
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{_port_of_user()}",
        help="address where processes meet (default: %(default)s)",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="changes to the config")


def run(arguments: argparse.Namespace) -> int:
    """Trains or evaluates in one process, or in several."""
    from fastreid_clip3d.engine.job import Job
    from fastreid_clip3d.engine.launch import run_job

    run_job(Job(**vars(arguments)))
    return 0


def _port_of_user() -> int:
    """fast-reid's rule: users of one machine get different ports."""
    user = 1 if sys.platform == "win32" else hash(os.getuid())
    return 2**15 + 2**14 + user % 2**14
