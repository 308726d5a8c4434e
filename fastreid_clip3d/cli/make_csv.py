"""Describes a folder of pictures as a CSV file, which DATASETS.CSV and every verb with --data reads."""

from __future__ import annotations

import argparse
import sys

from fastreid_clip3d.cli.run_options import add_json

EXAMPLES = """\
examples:
  # one folder per person; the layout is guessed, and ten rows are shown before the file is written
  clip3d make-csv my_photos --output people.csv

  # look first, write nothing
  clip3d make-csv my_photos --output people.csv --dry-run

  # my_photos/ANNA/red_jacket/*.jpg: the inner folders are outfits, so that cloth-changing scores are possible
  clip3d make-csv my_photos --layout person-folders --inner-folders clothes --output people.csv

  # names as in Market-1501 (0002_c1s1_000451_03.jpg) or DukeMTMC (0005_c2_f0046985.jpg), with their folders or without
  clip3d make-csv Market-1501-v15.09.15 --layout market1501 --output market.csv

  # what clip3d crops or a tracker wrote: TRACK/FRAME.jpg or CAMERA/TRACK/FRAME.jpg; 30 % of the tracks are the test
  clip3d make-csv crops --layout tracker --test-share 0.3 --seed 1 --output tracks.csv

Folders train, query, gallery (or bounding_box_train, bounding_box_test) at the top are the split; of test and val,
people's queries are drawn. Without such folders people are dealt out with --seed. Then: clip3d check-dataset people.csv

exit code: 0 written, 1 written without some images that do not fit the layout (they are named), 2 nothing is written
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("folder", metavar="FOLDER", help="the folder of the pictures")
    parser.add_argument(
        "--layout",
        default="",
        choices=("person-folders", "market1501", "dukemtmc", "tracker"),
        help="how folders and files are named (default: guessed, with the reason)",
    )
    parser.add_argument(
        "--inner-folders",
        default="",
        choices=("clothes", "camera"),
        help="what a folder inside a person's folder is (default: there are none)",
    )
    parser.add_argument("--output", required=True, metavar="FILE.csv", help="the file to write; it must be new")
    parser.add_argument(
        "--test-share", type=float, default=0.5, help="share of the people in the test, 0..1 (default: 0.5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="show the rows and counts, write nothing")
    add_json(parser, "the report, with every file that is left out,")


def run(arguments: argparse.Namespace) -> int:
    """Shows ten rows and writes the file; 1 if images are left out."""
    from fastreid_clip3d.common.json_file import check_json, write_json
    from fastreid_clip3d.data.folder_layouts import read_folder
    from fastreid_clip3d.data.make_csv import as_json, check_output, in_words, make_table, write_table

    check_json(arguments.json)
    if not arguments.dry_run:
        check_output(arguments.output)
    content = read_folder(arguments.folder, arguments.layout, arguments.inner_folders)
    table = make_table(content, arguments.folder, arguments.output, arguments.seed, arguments.test_share)
    screen = sys.stderr if arguments.json == "-" else sys.stdout
    print(in_words(content, table), file=screen)
    if arguments.dry_run:
        print("Nothing is written (--dry-run).", file=screen)
    else:
        path = write_table(table, arguments.output)
        print(f"Written to {path}. Check it with: clip3d check-dataset {path} --sheet {path.stem}.png", file=screen)
    if arguments.json:
        write_json(arguments.json, as_json(content, table, "" if arguments.dry_run else arguments.output))
    return int(bool(content.misfits))
