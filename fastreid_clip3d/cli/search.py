#!/usr/bin/env python
"""Finds people in a folder of pictures: by pictures of them, or by phrases about their body shape."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # who is on this picture? The gallery is indexed once; later only what changed in it is computed
  python tools/search.py --model logs/demo/clip3d --query person.jpg --gallery GALLERY --top 10

  # many queries, a page to look at and numbers for a program
  python tools/search.py --model logs/demo/clip3d --query datasets/demo/SynthCC-tiny/query \\
      --gallery datasets/demo/SynthCC-tiny/gallery --html found.html --json found.json

  # a gallery on a disk that cannot be written to; folders of frames; a large gallery
  python tools/search.py --model logs/demo/clip3d --query person.jpg --gallery /mnt/archive --index ~/indices
  python tools/search.py --model logs/demo/clip3d --query track_17 --gallery tracks --tracklets
  python tools/search.py --model logs/demo/clip3d --query person.jpg --gallery GALLERY --approximate

  # by body shape: any of the 32 phrases, or other words where the teacher of the training is at hand
  python tools/search.py --model logs/demo/clip3d --gallery GALLERY --phrases tall broad-shouldered --sheet tall.png
  python tools/search.py --model logs/demo/clip3d --gallery GALLERY --phrases "wears a long coat" --free-text

  # how far can the phrases be trusted? Precision against the true bodies of SynthCC
  python tools/search.py --evaluate-phrases --model logs/demo/clip3d --data SynthCCTiny

After tools/calibrate.py the table also says how sure the model is. docs/search.md has more.
exit code: 0 found, 1 no query could be read, 2 an error
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="RUN", help="run folder, checkpoint or .onnx file")
    parser.add_argument("--gallery", metavar="FOLDER", default="", help="folder with the pictures to search in")
    parser.add_argument(
        "--query", nargs="+", metavar="IMAGE", default=[], help="pictures, folders, globs or .txt lists"
    )
    parser.add_argument(
        "--phrases", nargs="+", metavar="PHRASE", default=[], help="body-shape phrases instead of a query"
    )
    parser.add_argument("--free-text", action="store_true", help="take other phrases than the 32, through the teacher")
    parser.add_argument("--top", type=int, default=10, help="how many to list for each query (default: 10)")
    parser.add_argument("--tracklets", action="store_true", help="a folder of frames is one entry")
    parser.add_argument("--json", metavar="FILE", default="", help="write the answers as json")
    parser.add_argument("--html", metavar="FILE", default="", help="write a page that needs no other file")
    parser.add_argument("--sheet", metavar="FILE", default="", help="write one picture with all answers")
    parser.add_argument("--index", metavar="FOLDER", default="", help="keep the index here instead of in the gallery")
    parser.add_argument("--rebuild", action="store_true", help="compute the whole index anew")
    parser.add_argument("--approximate", action="store_true", help="faster on large galleries; its recall is measured")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures at once (default: 64)")
    parser.add_argument("--device", default="", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--evaluate-phrases", action="store_true", help="measure the phrases on --data and stop")
    parser.add_argument("--data", metavar="DATASET", default="", help="a SynthCC set, for --evaluate-phrases")
    parsed = parser.parse_args(arguments)
    if parsed.evaluate_phrases:
        return parsed
    if bool(parsed.query) == bool(parsed.phrases):
        parser.error("give either --query or --phrases")
    if not parsed.gallery:
        parser.error("give --gallery FOLDER")
    if parsed.phrases and parsed.approximate:
        parser.error("--approximate is for --query; phrases are always searched exactly")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    from fastreid_clip3d.inference.search.run import evaluate_phrases, search

    parsed = parse_arguments(arguments)
    return evaluate_phrases(parsed) if parsed.evaluate_phrases else search(parsed)


if __name__ == "__main__":
    run_tool(main)
