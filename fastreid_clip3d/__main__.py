"""``python -m fastreid_clip3d VERB`` is the command ``clip3d VERB``."""

from fastreid_clip3d.cli import main

main()
