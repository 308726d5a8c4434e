#!/usr/bin/env python
"""Repeats the paper's tables on the small rendered benchmark, and on the licensed datasets if you have them."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.common.dataset_root import VARIABLE, dataset_root
from fastreid_clip3d.errors import run_tool

EXAMPLES = """\
examples:
  # the ablation on SynthCC-tiny, three seeds; the same command continues an interrupted study
  python tools/reproduce.py --table 10 --data synthcc

  # two runs at a time with one thread each; scored on the validation people, on whom settings are chosen
  python tools/reproduce.py --table 10 --data synthcc --split val --jobs 2 --threads 1

  # some rows, one seed and other settings, in another folder
  python tools/reproduce.py --table 10 --data synthcc --variants full without_all --seeds 0 --epochs 8 \\
      --study-folder logs/longer --options MODEL.LOSSES.OT.REG 0.1 MODEL.LOSSES.OT.NUM_ITERS 100

  # upper bounds: true labels in place of the teacher's; true labels and true shapes in place of its labels and g
  python tools/reproduce.py --table 10 --data synthcc --variants true_labels true_shape

  # teachers; training and testing on people with constant or with redrawn skin and hair
  python tools/reproduce.py --table 11 --data synthcc --teachers embedded ViT-B-32:openai
  python tools/reproduce.py --table cross --data synthcc

  # tables on the licensed datasets: print the commands and what is missing; run two rows
  python tools/reproduce.py --table 2 --dry-run
  python tools/reproduce.py --table 4 --variants ltcc_clip3d ltcc_AGW --seeds 0 1 2

  # accuracy of the teachers' labels; Chamfer distance of predicted bodies, on new synthetic bodies or on HBW
  python tools/reproduce.py --table labels --teachers embedded ViT-B-32:openai
  python tools/reproduce.py --table 9 --runs logs/demo/clip3d
  python tools/reproduce.py --table 9 --hbw HBW/hbw.csv

  # list the rows; write the tables of the finished runs while others are training
  python tools/reproduce.py --table 10 --data synthcc --list
  python tools/reproduce.py --table 10 --data synthcc --tables-only

exit code: 0 all runs are finished, 1 some runs failed (their logs are printed), 2 no run could start
"""


ON_DATASETS = ("2", "3", "4", "5", "6", "7", "8")
WITHOUT_TRAININGS = ("9", "labels")
TABLES = (*ON_DATASETS, *WITHOUT_TRAININGS, "10", "11", "cross")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = os.cpu_count() or 1
    parser.add_argument("--table", required=True, choices=TABLES, help="the paper's table, or cross, or labels")
    parser.add_argument(
        "--data", choices=("synthcc", "real"), help="data to use (default: real for tables 2 to 8, else synthcc)"
    )
    parser.add_argument("--variants", nargs="+", default=[], metavar="NAME", help="only these rows (see --list)")
    parser.add_argument(
        "--seeds", nargs="+", type=int, help="random seeds of each row (default: 0 1 2; for tables 2 to 8: 0)"
    )
    parser.add_argument(
        "--split",
        choices=("test", "val"),
        default="test",
        help="people to test on; use val to choose settings (default: test)",
    )
    parser.add_argument(
        "--epochs", type=int, default=0, help="passes over the real images (default: those of the configs)"
    )
    parser.add_argument("--options", nargs="+", default=[], metavar="KEY VALUE", help="config keys of all runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument(
        "--threads", type=int, default=0, help="threads of each run (default: the cores divided by --jobs)"
    )
    parser.add_argument(
        "--study-folder",
        type=Path,
        default=Path("logs/study"),
        help="folder of the runs and tables (default: %(default)s)",
    )
    parser.add_argument(
        "--data-folder",
        type=Path,
        help="folder of the rendered data and weights (default: datasets/demo), or of the datasets for tables 2 to 8 "
        "(default: FASTREID_DATASETS, or ./datasets)",
    )
    parser.add_argument(
        "--teachers",
        nargs="+",
        default=["embedded", "ViT-B-32:openai", "ViT-B-16:openai", "ViT-L-14:openai"],
        metavar="NAME:TAG",
        help="teachers of table 11 and of labels: open_clip's names and tags, or a weights file (default: %(default)s)",
    )
    parser.add_argument(
        "--runs", nargs="+", type=Path, default=[], help="trained runs of table 9 (default: table 10's full method)"
    )
    parser.add_argument(
        "--hbw",
        type=Path,
        help="bodies of table 9: a CSV file with the columns image,mesh (and gender), or a folder with hbw.csv; meshes "
        "in the T-pose, in metres, .obj or .ply (default: new synthetic bodies)",
    )
    parser.add_argument("--bodies", type=int, default=200, help="new synthetic bodies of table 9 (default: 200)")
    parser.add_argument("--list", action="store_true", help="print the rows and which seeds are finished, and stop")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the runs, and stop")
    parser.add_argument(
        "--tables-only",
        action="store_true",
        help="write the tables of the finished runs, and stop; works while another study trains",
    )
    parsed = parser.parse_args(arguments)
    real = parsed.table in ON_DATASETS
    if parsed.data and (parsed.data == "real") != real:
        parser.error(f"--table {parsed.table} needs --data {'real' if real else 'synthcc'}")
    parsed.seeds = list(dict.fromkeys(parsed.seeds or ([0] if real else [0, 1, 2])))
    if parsed.jobs < 1 or parsed.bodies < 1 or min(parsed.threads, parsed.epochs, *parsed.seeds) < 0:
        parser.error("--jobs and --bodies must be at least 1; --threads, --epochs and --seeds at least 0")
    given = [
        name for name in ("list", "dry_run", "tables_only", "variants", "options", "epochs") if getattr(parsed, name)
    ]
    if given and parsed.table in WITHOUT_TRAININGS:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        parser.error(f"--table {parsed.table} trains nothing and has no rows to choose from; leave out {flags}")
    if not parsed.threads and not real:
        parsed.threads = max(1, cores // parsed.jobs)
    if parsed.data_folder is None:
        parsed.data_folder = Path(dataset_root()) if real else Path("datasets/demo")
    return parsed


def main() -> int:
    arguments = parse_arguments()
    os.environ[VARIABLE] = str(arguments.data_folder.absolute())  # for the readers of datasets in this process
    from tools.study.commands import reproduce

    return reproduce(arguments, shlex.join(["python", "tools/reproduce.py", *sys.argv[1:]]))


if __name__ == "__main__":
    run_tool(main)
