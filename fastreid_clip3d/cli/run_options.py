"""Options that the verbs share which take a trained run."""

from __future__ import annotations

import argparse


def add_allow_imports(parser: argparse.ArgumentParser) -> None:
    """Adds ``--allow-imports``; :func:`fastreid_clip3d.cli.run_verb` acts on it."""
    parser.add_argument(
        "--allow-imports",
        action="store_true",
        help="import the Python modules that the run's config names (IMPORTS); only for runs that you trust",
    )
