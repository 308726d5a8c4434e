"""Lists the config keys that the plug-in adds, with their defaults and meanings."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """\
examples:
  clip3d config-keys                                 the page, as markdown
  clip3d config-keys OT                              keys with OT in their name
  clip3d config-keys --output docs/config_keys.md    writes the page
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("part", nargs="?", default="", help="only keys whose name holds this")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the whole page to FILE")


def run(arguments: argparse.Namespace) -> int:
    """Prints the keys, or writes the page."""
    from fastreid_clip3d.common.files import write_atomically
    from fastreid_clip3d.config_reference import config_page, declared_keys

    if arguments.output:
        write_atomically(arguments.output, config_page().encode())
    elif not arguments.part:
        print(config_page(), end="")
    else:
        for key in declared_keys():
            if key.default and arguments.part.lower() in key.name.lower():
                print(f"{key.name} {key.default}\n    {key.meaning}")
    return 0
