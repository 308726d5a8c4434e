"""Shows what the teacher sees: the 16 body-shape descriptors of images, or the label statistics of a dataset."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fastreid_clip3d.cli.run_options import add_data, add_device, add_json, add_root, given_flags, not_negative
from fastreid_clip3d.errors import ClearError

if TYPE_CHECKING:
    from fastreid_clip3d.teacher.clip import Teacher

EXAMPLES = """\
examples:
  # the teacher that ships with the package, on your own photos
  clip3d label person.jpg other.png --sheet sheet.png

  # CLIP itself, as json
  clip3d label person.jpg --teacher ViT-L-14 --pretrained openai --json

  # do the labels of a dataset mean anything? The balance of each pair, and how far the images of one person agree
  clip3d label --data CelebReID --teacher ViT-L-14 --pretrained openai --plot labels.png
  clip3d label --data LTCC --cache datasets/teacher_cache/embedded_squash/LTCC --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    add_data(parser, "label statistics of the training images of a dataset or a CSV file", "--statistics")
    parser.add_argument(
        "--most", type=not_negative, default=0, help="images for the statistics at most, whole persons (default: all)"
    )
    add_root(parser)
    parser.add_argument("--cache", default="", help="read the labels from this teacher cache instead of computing them")
    parser.add_argument("--teacher", default="embedded", help="open_clip model, local-dir:FOLDER or embedded (default)")
    parser.add_argument("--pretrained", default="", help="open_clip's pretrained tag or a weights file")
    parser.add_argument(
        "--resize", default="squash", choices=("squash", "pad"), help="how a crop becomes the teacher's input"
    )
    add_device(parser)
    parser.add_argument(
        "--workers", type=not_negative, help="processes that read images (default: up to 8 beside CUDA, 0 on a CPU)"
    )
    add_json(parser, "labels or statistics")
    parser.add_argument("--sheet", metavar="FILE", help="also draw the images with their descriptors")
    parser.add_argument("--plot", metavar="FILE", help="also draw the statistics")


def run(arguments: argparse.Namespace) -> int:
    """Prints the labels of the images, or the statistics of the dataset."""
    if bool(arguments.images) == bool(arguments.data):
        raise ClearError("Give either images or --data DATASET.")
    if arguments.images and (names := given_flags(arguments, "plot", "cache", "most", "root")):
        raise ClearError(f"{names}: only for --data, the statistics of a dataset. Leave it out.")
    if arguments.data and arguments.sheet:
        raise ClearError("--sheet: only for images. Leave it out, or give --plot FILE to draw the statistics.")
    from fastreid_clip3d.common.figures import FIGURE_ENDINGS
    from fastreid_clip3d.common.files import check_writable
    from fastreid_clip3d.common.images import IMAGE_ENDINGS
    from fastreid_clip3d.common.json_file import check_json

    check_json(arguments.json)
    for path, endings in ((arguments.sheet, IMAGE_ENDINGS), (arguments.plot, FIGURE_ENDINGS)):
        if path:
            check_writable(path, endings)
    return _statistics(arguments) if arguments.data else _images(arguments)


def _images(arguments: argparse.Namespace) -> int:
    from fastreid_clip3d.common.json_file import write_json
    from fastreid_clip3d.teacher.listing import draw_sheet, label_images

    labels = list(label_images(_teacher(arguments), arguments.images, num_workers=arguments.workers))
    if arguments.json:
        write_json(arguments.json, [label.as_dict() for label in labels])
    if arguments.json != "-":
        print("\n\n".join(label.table() for label in labels))
    if arguments.sheet:
        print(f"sheet: {draw_sheet(labels, arguments.sheet)}", file=sys.stderr)
    return 0


def _statistics(arguments: argparse.Namespace) -> int:
    import numpy as np
    from tqdm import tqdm

    from fastreid_clip3d.common.json_file import write_json
    from fastreid_clip3d.data.datasets import build_dataset
    from fastreid_clip3d.data.records import paths_of
    from fastreid_clip3d.teacher.cache import TeacherCache
    from fastreid_clip3d.teacher.listing import label_images
    from fastreid_clip3d.teacher.statistics import label_statistics, plot_statistics, whole_persons

    records = build_dataset(arguments.data, arguments.root).train
    places = [(path, record[1]) for record in records for path in paths_of(record)]
    places = [places[row] for row in whole_persons([pid for _, pid in places], arguments.most)]
    paths = [path for path, _ in places]
    if arguments.cache:
        cache = TeacherCache(arguments.cache)
        choices = [cache.lookup(path)[1].numpy() for path in tqdm(paths, desc="labels", unit="image")]
    else:
        labels = label_images(_teacher(arguments), paths, num_workers=arguments.workers)
        choices = [label.phrase_choices for label in tqdm(labels, desc="labels", unit="image", total=len(paths))]
    statistics = label_statistics(np.stack(choices), np.array([pid for _, pid in places]))
    if arguments.json:
        write_json(arguments.json, statistics.as_dict())
    if arguments.json != "-":
        print(statistics.table())
    if arguments.plot:
        print(f"plot: {plot_statistics(statistics, arguments.plot, arguments.data)}", file=sys.stderr)
    return 0


def _teacher(arguments: argparse.Namespace) -> Teacher:
    from fastreid_clip3d.common.devices import find_device
    from fastreid_clip3d.teacher.clip import load_teacher

    return load_teacher(arguments.teacher, arguments.pretrained, arguments.resize, str(find_device(arguments.device)))
