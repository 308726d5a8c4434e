"""Lists the config keys that the plug-in adds, with their defaults and meanings."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastreid_clip3d.errors import ClearError

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

    if arguments.output and arguments.part:
        raise ClearError(
            f"--output writes the whole page, and {arguments.part!r} asks for a part. Leave one of them out."
        )
    if arguments.output:
        write_atomically(arguments.output, config_page().encode())
    elif not arguments.part:
        print(config_page(), end="")
    else:
        found = [key for key in declared_keys() if key.default and arguments.part.lower() in key.name.lower()]
        if not found:
            raise ClearError(
                f"No key that the plug-in adds has {arguments.part!r} in its name. `clip3d config-keys` lists all."
            )
        for key in found:
            print(f"{key.name} {key.default}\n    {key.meaning}")
    return 0
