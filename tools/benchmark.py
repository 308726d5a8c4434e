#!/usr/bin/env python
"""Measures the speed of each part of the project and of what it replaces, both in one run."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import run_tool

EXAMPLES = """\
examples:
  python tools/benchmark.py step                  a training step by part, beside fast-reid's baseline step
  python tools/benchmark.py ot                    the OT loss beside POT's solvers
  python tools/benchmark.py label                 labelling beside open_clip's bare forward pass
  python tools/benchmark.py teacher               steps of the embedded teacher's training
  python tools/benchmark.py render                rendering beside PyTorch3D's CPU path
  python tools/benchmark.py evaluation            scoring beside fast-reid's evaluators
  python tools/benchmark.py search                searching a million vectors
  python tools/benchmark.py export --model RUN    PyTorch, TorchScript and ONNX
  python tools/benchmark.py students              what each student costs
  python tools/benchmark.py step --help           the options of one benchmark

Every benchmark takes --json FILE. Close other programs first: their work makes every figure worse.
"""


def main() -> None:
    from tools import benchmark as benchmarks

    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for _, name, _ in pkgutil.iter_modules(benchmarks.__path__):
        module = importlib.import_module(f"{benchmarks.__name__}.{name}")
        if hasattr(module, "run"):
            description = (module.__doc__ or "").strip().splitlines()[0]
            module.add_arguments(chosen.add_parser(name, help=description, description=description))
    arguments = parser.parse_args()
    importlib.import_module(f"{benchmarks.__name__}.{arguments.benchmark}").run(arguments)


if __name__ == "__main__":
    run_tool(main)
