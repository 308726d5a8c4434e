#!/usr/bin/env python
"""Lists the config keys that the plug-in adds, with their defaults and meanings."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool  # noqa: E402

EXAMPLES = """\
examples:
  python tools/config_keys.py                                 the page, as markdown
  python tools/config_keys.py OT                              keys with OT in their name
  python tools/config_keys.py --output docs/config_keys.md    writes the page
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", default="", help="only keys whose name holds this")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the whole page to FILE")
    arguments = parser.parse_args()

    from fastreid_clip3d.config_reference import config_page, declared_keys

    if arguments.output:
        arguments.output.write_text(config_page(), encoding="utf-8")
        return
    if not arguments.part:
        print(config_page(), end="")
        return
    for key in declared_keys():
        if key.default and arguments.part.lower() in key.name.lower():
            print(f"{key.name} {key.default}\n    {key.meaning}")


if __name__ == "__main__":
    run_tool(main)
