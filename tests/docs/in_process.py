"""Runs a command in this process, as a shell would start it: nothing but imports is shared.

A command's words begin with ``clip3d`` and a verb, or with a tool's path.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import fastreid.data.build
import torch
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.utils.logger import setup_logger

from fastreid_clip3d import cli
from tests.conftest import REPOSITORY

REGISTRIES = (DATASET_REGISTRY, BACKBONE_REGISTRY, META_ARCH_REGISTRY)
LOGGERS = ("fastreid", "fastreid_clip3d")


class Parsed(BaseException):
    """Raised in place of going on, once a command line is parsed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self.arguments = arguments


@contextlib.contextmanager
def as_in_a_shell(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Working directory and environment of one command; whatever it registers or sets is taken back afterwards."""
    registered = [dict(registry._obj_map) for registry in REGISTRIES]
    cwd, path, threads = os.getcwd(), list(sys.path), torch.get_num_threads()
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(fastreid.data.build, "_root", environment.get("FASTREID_DATASETS", "datasets")),
    ):  # fast-reid reads the variable at its import
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(cwd)
            added = [entry for entry in sys.path if entry not in path and "site-packages" in entry]
            sys.path[:] = path + added  # onnxruntime's converters find their parts there
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)
            torch.backends.cudnn.benchmark = benchmark
            for registry, objects in zip(REGISTRIES, registered):
                registry._obj_map.clear()
                registry._obj_map.update(objects)
            _forget_loggers()
            _forget_modules_of(folder)


def _forget_modules_of(folder: Path) -> None:
    """Modules in the folder, and those of its copy of the checkout: another world may have others of that name."""
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "/")
        if path.parent == folder or (folder in path.parents and REPOSITORY not in path.parents):
            del sys.modules[name]


def _forget_loggers() -> None:
    """fast-reid keeps a logger's files and handlers for the whole process."""
    setup_logger.cache_clear()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
        logger.propagate = True
    logging.getLogger("fastreid.engine.train_loop").filters.clear()


def run_tool(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], patches: Mapping[str, Any] | None = None
) -> int:
    """Runs ``words`` and returns the exit code.

    Args:
        patches: "package.module.name" -> what stands there meanwhile.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(as_in_a_shell(folder, environment))
        stack.enter_context(mock.patch.object(sys, "argv", list(words)))
        for name, value in (patches or {}).items():
            importlib.import_module(name.rpartition(".")[0]) if _is_module(name) else None
            stack.enter_context(mock.patch(name, value))
        try:
            _start(words, folder)
        except SystemExit as ended:
            if ended.code is None or isinstance(ended.code, int):
                return ended.code or 0
            print(ended.code, file=sys.stderr)
            return 1
    return 0


def _start(words: Sequence[str], folder: Path) -> None:
    if words[0] == "clip3d":
        cli.main(words[1:])
    sys.path.insert(0, str((folder / words[0]).parent))  # as Python does with a script's folder
    runpy.run_path(str(folder / words[0]), run_name="__main__")


def _is_module(name: str) -> bool:
    return name.rpartition(".")[0].rpartition(".")[2].islower()


def parse_only(words: Sequence[str], folder: Path) -> argparse.Namespace:
    """What the own parser of the verb or tool makes of the command line.

    Raises:
        SystemExit: the parser refuses it, or it is ``--help``.
    """
    original = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *given: Any, **named: Any) -> None:
        raise Parsed(original(parser, *given, **named))

    with (
        mock.patch.object(sys, "argv", list(words)),
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_and_stop),
        as_in_a_shell(folder, {}),
    ):
        try:
            _start(words, folder)
        except Parsed as parsed:
            return parsed.arguments
    raise AssertionError(f"{words[0]} parses nothing with argparse")
