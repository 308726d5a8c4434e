#!/usr/bin/env python
"""Trains and evaluates a fast-reid model, CLIP3DReID included, from one config file; the same as `clip3d train`."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
