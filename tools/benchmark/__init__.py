"""Benchmarks, one module each: ``add_arguments(parser)`` and ``run(arguments) -> dict``; tools/benchmark.py runs them."""
