#!/usr/bin/env python
"""Repeats the paper's tables: in small on the rendered benchmark, and on the licensed datasets where they are."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool

EXAMPLES = """\
examples:
  # the ablation on SynthCC-tiny, three seeds; started again it goes on where it stopped
  python tools/reproduce.py --table 10 --data synthcc

  # two runs side by side with a thread each; the validation people, for choosing anything
  python tools/reproduce.py --table 10 --data synthcc --split val --jobs 2 --threads 1

  # some rows, one seed, other settings, in a folder of their own
  python tools/reproduce.py --table 10 --data synthcc --variants full without_all --seeds 0 --epochs 8 \\
      --study-folder logs/longer --options MODEL.LOSSES.OT.REG 0.1 MODEL.LOSSES.OT.NUM_ITERS 100

  # upper bounds: the same method told the truth in place of the teacher's labels, and of its g as well
  python tools/reproduce.py --table 10 --data synthcc --variants true_labels true_shape

  # teachers; people with their own skin and hair against people in whom these are redrawn with every outfit
  python tools/reproduce.py --table 11 --data synthcc --teachers embedded ViT-B-32:openai
  python tools/reproduce.py --table cross --data synthcc

  # tables of the licensed datasets: their commands and what is missing; those whose data is there
  python tools/reproduce.py --table 2 --dry-run
  python tools/reproduce.py --table 4 --variants ltcc_clip3d ltcc_AGW --seeds 0 1 2

  # the teachers' labels against the truth; Chamfer distance of predicted bodies, on fresh bodies or on HBW
  python tools/reproduce.py --table labels --teachers embedded ViT-B-32:openai
  python tools/reproduce.py --table 9 --runs logs/demo/clip3d
  python tools/reproduce.py --table 9 --hbw HBW/hbw.csv

  # what there is; the tables of what is finished, while the rest is running
  python tools/reproduce.py --table 10 --data synthcc --list
  python tools/reproduce.py --table 10 --data synthcc --tables-only

exit code: 0 all runs are finished, 1 some failed (their logs are named), 2 nothing could be run
"""


ON_DATASETS = ("2", "3", "4", "5", "6", "7", "8")
TABLES = (*ON_DATASETS, "9", "10", "11", "cross", "labels")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = os.cpu_count() or 1
    parser.add_argument("--table", required=True, choices=TABLES, help="which table")
    parser.add_argument(
        "--data", choices=("synthcc", "real"), help="on which data (default: tables 2 to 8 real, the others synthcc)"
    )
    parser.add_argument("--variants", nargs="+", default=[], metavar="NAME", help="only these rows (see --list)")
    parser.add_argument("--seeds", nargs="+", type=int, help="of each row (default: 0 1 2; for tables 2 to 8: 0)")
    parser.add_argument(
        "--split", choices=("test", "val"), default="test", help="people to test on; val for choosing (default: test)"
    )
    parser.add_argument("--epochs", type=int, default=0, help="passes over the real images (default: the configs')")
    parser.add_argument("--options", nargs="+", default=[], metavar="KEY VALUE", help="config keys of all runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (default: 1)")
    parser.add_argument("--threads", type=int, default=0, help="of each run (default: all cores, shared by the jobs)")
    parser.add_argument(
        "--study-folder", type=Path, default=Path("logs/study"), help="for runs and tables (default: %(default)s)"
    )
    parser.add_argument(
        "--data-folder",
        type=Path,
        help="rendered data and weights (default: datasets/demo); for tables 2 to 8 the datasets (default: "
        "FASTREID_DATASETS, or ./datasets)",
    )
    parser.add_argument(
        "--teachers",
        nargs="+",
        default=["embedded", "ViT-B-32:openai", "ViT-B-16:openai", "ViT-L-14:openai"],
        metavar="NAME:TAG",
        help="of table 11 and labels; open_clip's names and tags or a weights file (default: %(default)s)",
    )
    parser.add_argument(
        "--runs", nargs="+", type=Path, default=[], help="of table 9: trained runs (default: table 10's full method)"
    )
    parser.add_argument(
        "--hbw",
        type=Path,
        help="of table 9: a csv file with columns image,mesh (and gender), or a folder with hbw.csv; meshes T-posed, "
        "in metres, .obj or .ply (default: fresh synthetic bodies)",
    )
    parser.add_argument("--bodies", type=int, default=200, help="of table 9: fresh synthetic bodies (default: 200)")
    parser.add_argument("--list", action="store_true", help="show the rows and what is finished, and stop")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the runs, and stop")
    parser.add_argument("--tables-only", action="store_true", help="write the tables of what is finished, and stop")
    parsed = parser.parse_args(arguments)
    real = parsed.table in ON_DATASETS
    if parsed.data and (parsed.data == "real") != real:
        parser.error(f"--table {parsed.table} is made from --data {'real' if real else 'synthcc'}")
    parsed.seeds = list(dict.fromkeys(parsed.seeds or ([0] if real else [0, 1, 2])))
    if parsed.jobs < 1 or parsed.bodies < 1 or min(parsed.threads, parsed.epochs, *parsed.seeds) < 0:
        parser.error("--jobs and --bodies are at least 1; --threads, --epochs and --seeds are at least 0")
    if not parsed.threads and not real:
        parsed.threads = max(1, cores // parsed.jobs)
    if parsed.data_folder is None:
        parsed.data_folder = Path(os.getenv("FASTREID_DATASETS", "datasets")) if real else Path("datasets/demo")
    return parsed


def main() -> int:
    arguments = parse_arguments()
    from tools.study.commands import reproduce

    return reproduce(arguments, shlex.join(["python", "tools/reproduce.py", *sys.argv[1:]]))


if __name__ == "__main__":
    run_tool(main)
