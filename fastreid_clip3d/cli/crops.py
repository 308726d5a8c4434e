"""Cuts people out of videos and photos into folders, by boxes from a file or from a detector that you have."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fastreid_clip3d.cli.run_options import add_device, add_json, positive
from fastreid_clip3d.errors import ClearError

if TYPE_CHECKING:
    from fastreid_clip3d.inference.crops.box_sources import BoxSource
    from fastreid_clip3d.inference.crops.frames import Footage

EXAMPLES = """\
examples:
  # boxes of your tracker, one line each: frame,id,x,y,w,h,conf (MOTChallenge); or a .json file
  clip3d crops walk.mp4 --boxes walk.txt --output crops

  # a YOLO model of ultralytics with its tracker; each fifth frame
  clip3d crops walk.mp4 --weights yolo11n.pt --every 5 --output crops

  # torchvision's SSDLite or Faster R-CNN, from the file of its weights; tracks by ByteTrack (pip install trackers)
  clip3d crops walk.mp4 --weights ssdlite320_mobilenet_v3_large_coco-a79551df.pth --output crops

  # photos: the people of each photo go into a folder of their own
  clip3d crops photos --weights yolo11n.pt --margin 0.05 --output crops

  # then
  clip3d search --model logs/demo/clip3d --query a.jpg --gallery crops --tracklets
  clip3d make-csv crops --output people.csv

A track's crops are CROPS/TRACK/FRAME.jpg, with several videos CROPS/VIDEO/TRACK/FRAME.jpg. CROPS/crops.csv has the box
of each crop. A json file of boxes is a list of {"frame": 1, "id": 7, "xyxy": [x1, y1, x2, y2], "score": 0.9}; id and
score may be missing, "xywh" can take the place of "xyxy", and frame can be a photo's file name. No weights are fetched.
After a kill the same command goes on: it keeps the boxes that were found and cuts the crops that are missing.

exit code: 0 done, 1 there are no crops, or some frames or photos could not be read, 2 nothing could be done
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "sources", nargs="+", metavar="VIDEO_OR_PHOTOS", help="videos, photos, folders of photos, globs"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder of the crops: new, empty, or left by this command when it was stopped",
    )
    parser.add_argument("--boxes", default="", metavar="FILE", help="boxes from a file: MOT .txt or .json")
    parser.add_argument(
        "--detector",
        default="",
        choices=("ultralytics", "torchvision"),
        help="whose model finds people (default: torchvision for weights that end in .pth, else ultralytics)",
    )
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="the detector's weights (default: torchvision's in torch's cache)"
    )
    parser.add_argument("--no-tracks", action="store_true", help="do not join a video's boxes to tracks")
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="take each n-th frame (default: 1)")
    parser.add_argument("--min-score", type=float, default=0.5, help="least score of a box, 0..1 (default: 0.5)")
    parser.add_argument(
        "--min-size", type=positive, nargs=2, default=(48, 16), metavar=("HEIGHT", "WIDTH"),
        help="least size of a box inside the frame, in pixels (default: 48 16)",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=float, default=0.0, help="enlarge a box by this share on each side (default: 0)"
    )
    add_device(parser)
    add_json(parser, "the summary")


def run(arguments: argparse.Namespace) -> int:
    """Cuts the crops; 1 if there are none, or if something could not be read."""
    if arguments.boxes and (arguments.detector or arguments.weights):
        raise ClearError("Give either --boxes or a detector (--detector, --weights).")
    from fastreid_clip3d.common.files import check_writable_folder
    from fastreid_clip3d.common.json_file import check_json, write_json
    from fastreid_clip3d.inference.crops.box_files import read_boxes
    from fastreid_clip3d.inference.crops.box_sources import boxes_behind_the_end, boxes_from_file, boxes_of_detector
    from fastreid_clip3d.inference.crops.cut import CropSettings, cut_crops
    from fastreid_clip3d.inference.crops.detectors import build_detectors
    from fastreid_clip3d.inference.crops.frames import find_footage

    check_json(arguments.json)
    check_writable_folder(arguments.output, "--output")
    height, width = arguments.min_size
    settings = CropSettings(arguments.min_score, arguments.margin, height, width, arguments.every)
    footage = find_footage(arguments.sources)
    work: list[tuple[Footage, BoxSource]] = []
    boxes = None
    if arguments.boxes:
        if len(footage) > 1:
            raise ClearError("--boxes holds the boxes of one video or of one set of photos; give one source.")
        boxes = read_boxes(arguments.boxes)
        work = [(footage[0], boxes_from_file(boxes, footage[0]))]
    else:
        tracked = [one.is_video and not arguments.no_tracks for one in footage]
        detectors = build_detectors(arguments.detector, arguments.weights, tracked, arguments.device)
        work = [(one, boxes_of_detector(detector)) for one, detector in zip(footage, detectors)]
    progress = arguments.json != "-" and sys.stderr.isatty()
    report = cut_crops(work, arguments.output, settings, not arguments.no_tracks, progress)
    if boxes is not None:
        if boxes.other_classes:
            report.left_out["no people, by their class"] += boxes.other_classes
        if behind := boxes_behind_the_end(boxes, footage[0]):
            report.unreadable.append(behind)
    if arguments.json:
        write_json(arguments.json, report.as_json())
    if arguments.json != "-":
        print(report.in_words())
    return int(not report.crops or bool(report.unreadable))
