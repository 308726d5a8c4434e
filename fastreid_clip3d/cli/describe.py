"""Prints the 16 descriptors and the measurements of one body, from a T-posed mesh or from shape coefficients."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.run_options import add_json
from fastreid_clip3d.errors import ClearError

EXAMPLES = """\
examples:
  # a body of the embedded female model, two of its ten coefficients given
  clip3d describe --gender female --betas 1.5 -0.5

  # a mesh made with one's own SMPL model (T-pose, metres, y up), as JSON
  clip3d describe body.ply --gender male --body-model /models/smpl --json

Each phrase stands for the side of the median of the body's own sex; "deviations" says how far from it, in standard
deviations of 1,000 random bodies of the model. Near 0 either phrase would do.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("mesh", nargs="?", help="mesh file of the body model's topology that trimesh reads")
    parser.add_argument("--betas", type=float, nargs="+", help="shape coefficients in standard deviations")
    parser.add_argument(
        "--gender", choices=("female", "male", "neutral"), default="neutral", help="of model and medians (neutral)"
    )
    parser.add_argument("--body-model", default="", help="SMPL file or folder (default: the embedded model)")
    add_json(parser, "descriptors and measurements")


def run(arguments: argparse.Namespace) -> int:
    """Measures the body and prints tables or json."""
    if (arguments.mesh is None) == (arguments.betas is None):
        raise ClearError("give a mesh file or --betas, one of the two")

    from fastreid_clip3d.body.description import describe_one, print_tables, vertices_from_betas, vertices_from_file
    from fastreid_clip3d.body.model import load_body_model
    from fastreid_clip3d.common.json_file import check_json, write_json

    check_json(arguments.json)
    body_model = load_body_model(arguments.body_model, gender=arguments.gender)
    if arguments.mesh is not None:
        vertices = vertices_from_file(arguments.mesh, body_model)
    else:
        vertices = vertices_from_betas(arguments.betas, body_model)
    description = describe_one(vertices, body_model)
    if arguments.json:
        write_json(arguments.json, description.as_dict())
    if arguments.json != "-":
        print_tables(description)
    return 0
