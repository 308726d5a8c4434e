#!/usr/bin/env python
"""Prints the 16 descriptors and the measurements of one body, from a T-posed mesh or from shape coefficients."""

from __future__ import annotations

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import ClearError, run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # a body of the embedded female model, two of its ten coefficients given
  python tools/describe_body.py --gender female --betas 1.5 -0.5

  # a mesh made with one's own SMPL model (T-pose, metres, y up), as JSON
  python tools/describe_body.py body.ply --gender male --body-model /models/smpl --json

Each phrase stands for the side of the median of the body's own sex; "deviations" says how far from it, in standard
deviations of 1,000 random bodies of the model. Near 0 either phrase would do.
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mesh", nargs="?", help="mesh file of the body model's topology that trimesh reads")
    parser.add_argument("--betas", type=float, nargs="+", help="shape coefficients in standard deviations")
    parser.add_argument(
        "--gender", choices=("female", "male", "neutral"), default="neutral", help="of model and medians (neutral)"
    )
    parser.add_argument("--body-model", default="", help="SMPL file or folder (default: the embedded model)")
    parser.add_argument("--json", action="store_true", help="JSON in place of tables")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    parsed = parse_arguments(arguments)
    if (parsed.mesh is None) == (parsed.betas is None):
        raise ClearError("give a mesh file or --betas, one of the two")

    from fastreid_clip3d.body.description import describe_one, print_tables, vertices_from_betas, vertices_from_file
    from fastreid_clip3d.body.model import load_body_model

    body_model = load_body_model(parsed.body_model, gender=parsed.gender)
    if parsed.mesh is not None:
        vertices = vertices_from_file(parsed.mesh, body_model)
    else:
        vertices = vertices_from_betas(parsed.betas, body_model)
    description = describe_one(vertices, body_model)
    if parsed.json:
        print(json.dumps(description.as_dict(), indent=2))
    else:
        print_tables(description)


if __name__ == "__main__":
    run_tool(main)
