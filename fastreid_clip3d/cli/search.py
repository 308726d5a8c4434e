"""Finds people in a folder of pictures: by pictures of them, or by phrases about their body shape."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.refinement_options import add_refinement
from fastreid_clip3d.cli.run_options import (
    add_batch_size,
    add_data,
    add_device,
    add_json,
    add_model,
    add_root,
    given_flags,
    model_source,
    positive,
)
from fastreid_clip3d.errors import ClearError

EXAMPLES = """\
examples:
  # who is on this picture? The gallery is indexed once; later only what changed in it is computed
  clip3d search --model logs/demo/clip3d --query person.jpg --gallery GALLERY --top 10

  # many queries, a page to look at and numbers for a program
  clip3d search --model logs/demo/clip3d --query datasets/demo/SynthCC-tiny/query \\
      --gallery datasets/demo/SynthCC-tiny/gallery --html found.html --json found.json

  # several pictures of one person as one query; better answers from the same features
  clip3d search --model logs/demo/clip3d --query a.jpg b.jpg --one-person --gallery GALLERY
  clip3d search --model logs/demo/clip3d --query person.jpg --gallery GALLERY --nfc --rerank

  # a gallery on a read-only disk; folders of frames
  clip3d search --model logs/demo/clip3d --query person.jpg --gallery /mnt/archive --index ~/indices
  clip3d search --model logs/demo/clip3d --query track_17 --gallery tracks --tracklets

  # by body shape: any of the 32 phrases, or other words where the training's teacher is installed
  clip3d search --model logs/demo/clip3d --gallery GALLERY --phrases tall broad-shouldered --sheet tall.png
  clip3d search --model logs/demo/clip3d --gallery GALLERY --phrases "wears a long coat" --free-text

  # how well do the phrases find people? Precision against the true bodies of SynthCC
  clip3d search --evaluate-phrases --model logs/demo/clip3d --data SynthCCTiny

After `clip3d calibrate` the table also says whether a hit shows the same person. docs/search.md has more.
exit code: 0 found, 1 no query could be read, 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    add_model(parser)
    parser.add_argument("--gallery", metavar="FOLDER", default="", help="folder with the pictures to search in")
    parser.add_argument(
        "--query", nargs="+", metavar="IMAGE", default=[], help="pictures, folders, globs or .txt lists"
    )
    parser.add_argument(
        "--phrases", nargs="+", metavar="PHRASE", default=[], help="body-shape phrases instead of a query"
    )
    parser.add_argument("--free-text", action="store_true", help="take other phrases than the 32, through the teacher")
    parser.add_argument("--top", type=positive, default=10, metavar="N", help="matches to list per query (default: 10)")
    parser.add_argument(
        "--one-person", nargs="?", const="mean", default="", choices=("mean", "best"),
        help="all --query pictures show one person: use the mean of their features (default), or each one's best match",
    )  # fmt: skip
    add_refinement(parser)
    parser.add_argument("--tracklets", action="store_true", help="a folder of frames is one entry")
    add_json(parser, "the answers")
    parser.add_argument("--html", metavar="FILE", default="", help="write a page that needs no other file")
    parser.add_argument("--sheet", metavar="FILE", default="", help="write one picture with all answers")
    parser.add_argument("--index", metavar="FOLDER", default="", help="keep the index here instead of in the gallery")
    parser.add_argument("--rebuild", action="store_true", help="compute the whole index anew")
    add_batch_size(parser)
    add_device(parser)
    parser.add_argument("--evaluate-phrases", action="store_true", help="measure the phrases on --data and stop")
    add_data(parser, "a SynthCC set, for --evaluate-phrases")
    add_root(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answers the queries or the phrases; 1 if no query could be read."""
    _check(arguments)
    from fastreid_clip3d.evaluation.refinement import Refinement
    from fastreid_clip3d.inference.search.run import evaluate_phrases, search

    if arguments.evaluate_phrases:
        evaluate_phrases(
            model_source(arguments),
            arguments.data,
            root=arguments.root,
            batch_size=arguments.batch_size,
            device=arguments.device,
            json_file=arguments.json,
        )
        return 0
    found = search(
        model_source(arguments),
        arguments.gallery,
        query=arguments.query,
        phrases=arguments.phrases,
        free_text=arguments.free_text,
        top=arguments.top,
        one_person=arguments.one_person,
        refinement=Refinement.of_flags(arguments.nfc, arguments.expand, arguments.rerank),
        tracklets=arguments.tracklets,
        json_file=arguments.json,
        html=arguments.html,
        sheet=arguments.sheet,
        index=arguments.index,
        rebuild=arguments.rebuild,
        batch_size=arguments.batch_size,
        device=arguments.device,
    )
    return 0 if found.answers else 1


def _check(arguments: argparse.Namespace) -> None:
    """Refuses flags that would have no effect."""
    of_a_search = (
        *("query", "phrases", "gallery", "free_text", "one_person", "nfc", "expand", "rerank", "tracklets"),
        *("html", "sheet", "index", "rebuild"),
    )
    if arguments.evaluate_phrases:
        if names := given_flags(arguments, *of_a_search):
            raise ClearError(f"--evaluate-phrases measures all phrases on --data and takes no {names}. Leave them out.")
        return
    if names := given_flags(arguments, "data", "root"):
        raise ClearError(f"{names}: only for --evaluate-phrases. Leave it out, or add that.")
    if arguments.free_text and not arguments.phrases:
        raise ClearError("--free-text goes with --phrases.")
    if bool(arguments.query) == bool(arguments.phrases):
        raise ClearError("give either --query or --phrases")
    if not arguments.gallery:
        raise ClearError("give --gallery FOLDER")
