"""One module per benchmark, with add_arguments(parser) and run(arguments) -> dict; tools/benchmark.py runs them."""
