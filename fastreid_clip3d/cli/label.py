#!/usr/bin/env python
"""Shows what the teacher sees: the 16 body-shape descriptors of images, or the label statistics of a data set."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import ClearError, run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # the teacher that ships with the package, on your own photos
  python tools/label_images.py person.jpg other.png --sheet sheet.png

  # CLIP itself, as json
  python tools/label_images.py person.jpg --teacher ViT-L-14 --pretrained openai --json

  # do the labels of a data set mean anything? balance of each pair, agreement over the images of one person
  python tools/label_images.py --statistics CelebReID --teacher ViT-L-14 --pretrained openai --plot labels.png
  python tools/label_images.py --statistics LTCC --cache datasets/teacher_cache --json
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    parser.add_argument("--statistics", metavar="DATASET", help="label statistics of a dataset's training images")
    parser.add_argument(
        "--most", type=int, default=0, help="statistics of so many images at most, whole persons (default: all)"
    )
    parser.add_argument("--root", default="", help="folder of the datasets (default: $FASTREID_DATASETS or datasets)")
    parser.add_argument("--cache", default="", help="read the labels from this teacher cache instead of computing them")
    parser.add_argument("--teacher", default="embedded", help="open_clip model, local-dir:FOLDER or embedded (default)")
    parser.add_argument("--pretrained", default="", help="open_clip's pretrained tag or a weights file")
    parser.add_argument(
        "--resize", default="squash", choices=("squash", "pad"), help="how a crop becomes the teacher's input"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--workers", type=int, help="processes that read images (default: 2 beside CUDA, 0 on a CPU)")
    parser.add_argument("--json", action="store_true", help="json instead of a table")
    parser.add_argument("--sheet", metavar="FILE", help="also draw the images with their descriptors")
    parser.add_argument("--plot", metavar="FILE", help="also draw the statistics")
    parsed = parser.parse_args(arguments)
    if bool(parsed.images) == bool(parsed.statistics):
        parser.error("give either images or --statistics DATASET")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    return _statistics(parsed) if parsed.statistics else _images(parsed)


def _images(parsed: argparse.Namespace) -> int:
    import json

    from fastreid_clip3d.teacher.listing import draw_sheet, label_images

    labels = list(label_images(_teacher(parsed), parsed.images, num_workers=parsed.workers))
    print(
        json.dumps([label.as_dict() for label in labels], indent=2)
        if parsed.json
        else "\n\n".join(label.table() for label in labels)
    )
    if parsed.sheet:
        print(f"sheet: {draw_sheet(labels, parsed.sheet)}", file=sys.stderr)
    return 0


def _statistics(parsed: argparse.Namespace) -> int:
    import json

    import numpy as np
    from tqdm import tqdm

    from fastreid_clip3d.data.datasets import build_dataset
    from fastreid_clip3d.teacher.cache import TeacherCache
    from fastreid_clip3d.teacher.listing import label_images
    from fastreid_clip3d.teacher.statistics import label_statistics, plot_statistics, whole_persons

    records = build_dataset(parsed.statistics, parsed.root).train
    places = [(path, record[1]) for record in records for path in (getattr(record, "frames", ()) or (record[0],))]
    places = [places[row] for row in whole_persons([pid for _, pid in places], parsed.most)]
    paths = [path for path, _ in places]
    if parsed.cache:
        cache = TeacherCache(parsed.cache)
        choices = [cache.lookup(path)[1].numpy() for path in tqdm(paths, desc="labels", unit="image")]
    else:
        labels = label_images(_teacher(parsed), paths, num_workers=parsed.workers)
        choices = [label.phrase_choices for label in tqdm(labels, desc="labels", unit="image", total=len(paths))]
    statistics = label_statistics(np.stack(choices), np.array([pid for _, pid in places]))
    print(json.dumps(statistics.as_dict(), indent=2) if parsed.json else statistics.table())
    if parsed.plot:
        print(f"plot: {plot_statistics(statistics, parsed.plot, parsed.statistics)}", file=sys.stderr)
    return 0


def _teacher(parsed: argparse.Namespace):
    import torch

    from fastreid_clip3d.teacher.clip import load_teacher

    if parsed.device.startswith("cuda") and not torch.cuda.is_available():
        raise ClearError("--device cuda: no CUDA device can be used here; leave the flag out to run on the CPU.")
    return load_teacher(parsed.teacher, parsed.pretrained, parsed.resize, parsed.device)


if __name__ == "__main__":
    run_tool(main)
