"""Errors a user can act on: one message that says what is wrong, where, and what to do."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import NoReturn

OPTIONAL = {
    "faiss": "faiss-cpu",
    "gdown": "gdown",
    "matplotlib": "matplotlib",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "pyarrow": "pyarrow",
    "pytorch3d": "easypytorch3d",
    "trimesh": "trimesh",
}
"""Libraries that are imported only where they are used, and what to install for each."""


class ClearError(Exception):
    """A problem with the user's input or machine, shown as one message without a traceback."""


def message_of(error: ClearError) -> str:
    """The error's own words; a loader's worker process wraps them into its traceback."""
    text = str(error)
    if "Original Traceback" not in text:
        return text
    last_name = max(text.rfind(f"{kind.__name__}: ") for kind in type(error).__mro__)
    return text[last_name:].partition(": ")[2].strip() if last_name >= 0 else text


def run_tool(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command line's `main` and turns a :class:`ClearError` into one message and exit code 2.

    An optional library that is missing ends the same way. Ctrl-C ends with code 130, as shells expect. Any other
    exception is a bug and keeps its traceback.
    """
    try:
        sys.exit(main() or 0)
    except ClearError as error:
        print(f"error: {message_of(error)}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in OPTIONAL:
            raise
        print(f"error: this needs {library}, which is not installed: pip install {OPTIONAL[library]}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        gc.freeze()  # else the end of the interpreter collects through all of torch's modules: 2 s of CPU
