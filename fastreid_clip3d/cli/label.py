"""Shows what the teacher sees: the 16 body-shape descriptors of images, or the label statistics of a dataset."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

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
  clip3d label --statistics CelebReID --teacher ViT-L-14 --pretrained openai --plot labels.png
  clip3d label --statistics LTCC --cache datasets/teacher_cache --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    parser.add_argument(
        "--statistics", metavar="DATASET", help="label statistics of the training images of a dataset or a CSV file"
    )
    parser.add_argument(
        "--most", type=int, default=0, help="images for the statistics at most, whole persons (default: all)"
    )
    parser.add_argument("--root", default="", help="folder of the datasets (default: $FASTREID_DATASETS or datasets)")
    parser.add_argument("--cache", default="", help="read the labels from this teacher cache instead of computing them")
    parser.add_argument("--teacher", default="embedded", help="open_clip model, local-dir:FOLDER or embedded (default)")
    parser.add_argument("--pretrained", default="", help="open_clip's pretrained tag or a weights file")
    parser.add_argument(
        "--resize", default="squash", choices=("squash", "pad"), help="how a crop becomes the teacher's input"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--workers", type=int, help="processes that read images (default: up to 8 beside CUDA, 0 on a CPU)")
    parser.add_argument("--json", action="store_true", help="json instead of a table")
    parser.add_argument("--sheet", metavar="FILE", help="also draw the images with their descriptors")
    parser.add_argument("--plot", metavar="FILE", help="also draw the statistics")


def run(arguments: argparse.Namespace) -> int:
    """Prints the labels of the images, or the statistics of the dataset."""
    if bool(arguments.images) == bool(arguments.statistics):
        raise ClearError("give either images or --statistics DATASET")
    return _statistics(arguments) if arguments.statistics else _images(arguments)


def _images(arguments: argparse.Namespace) -> int:
    from fastreid_clip3d.teacher.listing import draw_sheet, label_images

    labels = list(label_images(_teacher(arguments), arguments.images, num_workers=arguments.workers))
    print(
        json.dumps([label.as_dict() for label in labels], indent=2)
        if arguments.json
        else "\n\n".join(label.table() for label in labels)
    )
    if arguments.sheet:
        print(f"sheet: {draw_sheet(labels, arguments.sheet)}", file=sys.stderr)
    return 0


def _statistics(arguments: argparse.Namespace) -> int:
    import numpy as np
    from tqdm import tqdm

    from fastreid_clip3d.data.datasets import build_dataset
    from fastreid_clip3d.teacher.cache import TeacherCache
    from fastreid_clip3d.teacher.listing import label_images
    from fastreid_clip3d.teacher.statistics import label_statistics, plot_statistics, whole_persons

    records = build_dataset(arguments.statistics, arguments.root).train
    places = [(path, record[1]) for record in records for path in (getattr(record, "frames", ()) or (record[0],))]
    places = [places[row] for row in whole_persons([pid for _, pid in places], arguments.most)]
    paths = [path for path, _ in places]
    if arguments.cache:
        cache = TeacherCache(arguments.cache)
        choices = [cache.lookup(path)[1].numpy() for path in tqdm(paths, desc="labels", unit="image")]
    else:
        labels = label_images(_teacher(arguments), paths, num_workers=arguments.workers)
        choices = [label.phrase_choices for label in tqdm(labels, desc="labels", unit="image", total=len(paths))]
    statistics = label_statistics(np.stack(choices), np.array([pid for _, pid in places]))
    print(json.dumps(statistics.as_dict(), indent=2) if arguments.json else statistics.table())
    if arguments.plot:
        print(f"plot: {plot_statistics(statistics, arguments.plot, arguments.statistics)}", file=sys.stderr)
    return 0


def _teacher(arguments: argparse.Namespace) -> Teacher:
    from fastreid_clip3d.common.devices import find_device
    from fastreid_clip3d.teacher.clip import load_teacher

    return load_teacher(arguments.teacher, arguments.pretrained, arguments.resize, str(find_device(arguments.device)))
