"""Uploads a trained run to the Hugging Face hub, with a model card."""

from __future__ import annotations

import argparse
import os
import tempfile

from fastreid_clip3d.cli.run_options import add_allow_imports
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError

EXAMPLES = """\
examples:
  # look at what would be uploaded: the folder loads like the model on the hub
  clip3d push logs/demo/clip3d OWNER/NAME --local for_the_hub
  clip3d check-model --model for_the_hub

  # upload it as a private repository; log in before by `hf auth login`
  clip3d push logs/demo/clip3d OWNER/NAME --licence apache-2.0
  clip3d push logs/seed0 OWNER/NAME --other-seeds logs/seed1 logs/seed2 --public

The folder holds model.safetensors (the weights without the classifier, whose rows stand for the people of the
training), config.yaml without this machine's paths, calibration.json where there is one, and README.md, the model card:
data, scores by protocol and seed, licence, intended use and what the model must not be used for. Read the card first.
load_model("hf-hub:OWNER/NAME") and --model hf-hub:OWNER/NAME load it.
exit code: 0 written, 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("run", metavar="RUN", help="run folder or checkpoint")
    parser.add_argument("repository", metavar="OWNER/NAME", help="the repository; it is made if it is not there")
    add_allow_imports(parser)
    parser.add_argument(
        "--other-seeds", nargs="+", default=[], metavar="RUN", help="runs of the same training with other seeds"
    )
    parser.add_argument(
        "--licence", default="", metavar="NAME", help="the hub's name of a licence (default: not stated)"
    )
    parser.add_argument("--local", default="", metavar="FOLDER", help="write the files here and upload nothing")
    parser.add_argument("--public", action="store_true", help="a new repository can be read by everybody")


def run(arguments: argparse.Namespace) -> int:
    """Writes the files and uploads them."""
    if arguments.local and arguments.public:
        raise ClearError("--local uploads nothing, so that --public has no effect. Give one of them.")
    from fastreid_clip3d.inference.hub import check_repository, upload
    from fastreid_clip3d.inference.publish import Score, write_folder
    from fastreid_clip3d.visualization.report.record import read_run
    from fastreid_clip3d.visualization.report.scores import score_tables

    repository = check_repository(arguments.repository)
    records = [read_run(run) for run in (arguments.run, *arguments.other_seeds)]
    parts = ("MODEL", "INPUT", "DATASETS", "SOLVER")
    for record in records[1:]:
        changed = [part for part in parts if record.setting(part) != records[0].setting(part)]
        if changed:
            raise ClearError(f"{record.folder} is another training than {arguments.run}: {', '.join(changed)} differ.")
    runs = (arguments.run, *arguments.other_seeds)
    without = [run for run in runs if not _is_last_checkpoint(run)]
    for run in without:
        print(f"{printable(run)}: no scores. Those in its folder are of the run's last checkpoint.")
    scores = [
        Score(-1 if record.setting("SEED") is None else record.setting("SEED"), table.dataset, protocol, values)
        for run, record in zip(runs, records)
        if run not in without
        for table in score_tables(record)
        for protocol, values in table.protocols.items()
    ]
    with tempfile.TemporaryDirectory(prefix="fastreid_clip3d") as temporary:
        folder = arguments.local or temporary
        model = write_folder(arguments.run, folder, repository, scores, arguments.licence, arguments.allow_imports)
        print(f"{model.backbone_name}, {model.feature_dim} numbers, {len(scores)} rows of scores.")
        if arguments.local:
            print(f"Written to {printable(folder)}; nothing is uploaded.")
        else:
            print(f"Uploaded: {upload(model.run_folder, repository, arguments.public)}")
    return 0


def _is_last_checkpoint(run: str) -> bool:
    """Whether a run folder, or the checkpoint that its scores belong to, was named."""
    from fastreid_clip3d.modeling.weights import find_checkpoint

    if not os.path.isfile(run):
        return True
    checkpoint = find_checkpoint(run)
    try:
        last = find_checkpoint(checkpoint.parent)
    except ClearError:  # a checkpoint alone, without the files that a training leaves
        return True
    return os.path.realpath(checkpoint) == os.path.realpath(last)
