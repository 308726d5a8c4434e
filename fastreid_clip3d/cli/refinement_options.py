"""The flags that ask for better answers from the same features, for ``clip3d evaluate`` and ``clip3d search``."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.run_options import positive


def add_refinement(parser: argparse.ArgumentParser) -> None:
    """Adds ``--nfc``, ``--expand K`` and ``--rerank``; they act in this order."""
    parser.add_argument(
        "--nfc",
        action="store_true",
        help="move each feature towards its mutual nearest neighbours (Pose2ID, CVPR 2025)",
    )
    parser.add_argument(
        "--expand", type=positive, default=0, metavar="K", help="average each feature with its K - 1 nearest (AQE)"
    )
    parser.add_argument(
        "--rerank", action="store_true", help="k-reciprocal re-ranking (Zhong et al., k1 20, k2 6, lambda 0.3)"
    )
