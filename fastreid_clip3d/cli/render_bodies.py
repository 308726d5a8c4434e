"""Renders the synthetic bodies that the third design trains on: grey pictures with true shapes and descriptors."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.run_options import not_negative

EXAMPLES = """examples:
  clip3d render-bodies                                        the paper's 1,000 bodies in 10 poses each
  clip3d render-bodies --bodies 40 --poses-per-body 5 --size 128 64 --output datasets/SyntheticBodies-tiny
  clip3d render-bodies --body-model ~/smpl --poses my_poses.npz --framing fixed
  clip3d render-bodies --scene --framing fixed                the same bodies in SynthCC's scenes, by its cameras
  clip3d render-bodies --sheet bodies.png                     pictures to look at in place of a set

The same command goes on after an interruption.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--output",
        default=None,
        help="folder of the set (SyntheticBodies, with --scene SyntheticBodies-scene, below $FASTREID_DATASETS, or "
        "below ./datasets)",
    )
    parser.add_argument("--bodies", type=int, default=1000, help="number of bodies, half of them female (1000)")
    parser.add_argument("--poses-per-body", type=int, default=10, help="pictures of each body (10)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(256, 128),
        metavar=("H", "W"),
        help="size of a picture in pixels (256 128)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of shapes, poses, cameras and lights (0)")
    parser.add_argument(
        "--framing",
        choices=("crop", "fixed"),
        default="crop",
        help="crop: the body fills the picture, as a detector cuts it; fixed: one scale, so that stature shows (crop)",
    )
    parser.add_argument(
        "--scene",
        action="store_true",
        help="put the same grey bodies into SynthCC's scenes, with its cameras, boxes, light, blur and noise (a plain "
        "white background)",
    )
    parser.add_argument("--body-model", default="", help="folder or file of SMPL models (the embedded ones)")
    parser.add_argument("--poses", default="", help="axis-angle poses [K, 72], .npy or .npz (100 built-in poses)")
    parser.add_argument("--workers", type=not_negative, default=0, help="threads (one per core)")
    parser.add_argument("--device", default="cpu", help="where pictures are drawn: cpu or cuda (cpu)")
    parser.add_argument(
        "--sheet",
        metavar="FILE",
        default="",
        help="write contact sheets of shape directions, descriptors at both extremes and poses to FILE, and no set",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Makes the set, or the sheet."""
    if arguments.sheet:
        from fastreid_clip3d.body.sheets import write_sheet

        write_sheet(arguments.sheet, body_model=arguments.body_model, poses=arguments.poses, seed=arguments.seed)
        print(f"wrote {arguments.sheet}")
        return 0
    from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
    from fastreid_clip3d.body.synthetic_writer import SyntheticSet
    from fastreid_clip3d.common.dataset_root import below_dataset_root
    from fastreid_clip3d.synthcc.grey_bodies import FOLDER, GreyBodiesInScenes

    kind = GreyBodiesInScenes if arguments.scene else SyntheticSet
    output = arguments.output or below_dataset_root(FOLDER if arguments.scene else "SyntheticBodies")
    settings = SyntheticSettings(
        bodies=arguments.bodies,
        poses_per_body=arguments.poses_per_body,
        image_size=tuple(arguments.size),
        framing=arguments.framing,
        seed=arguments.seed,
        body_model=arguments.body_model,
        poses=arguments.poses,
    )
    index = kind(output, settings, arguments.workers, arguments.device).make(progress=not arguments.quiet)
    print(f"{len(index)} pictures of {settings.bodies} bodies in {output}, version {index.version}")
    return 0
