"""From a yaml file and ``KEY VALUE`` pairs to a config; an error names the file, the key and the nearest known one."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fastreid.config import CfgNode

from fastreid_clip3d.common.loss_names import OURS
from fastreid_clip3d.common.near_names import did_you_mean
from fastreid_clip3d.config import ALLOWED, get_cfg
from fastreid_clip3d.errors import ClearError

BASE = "_BASE_"
_PACKAGE = Path(__file__).parent
CONFIG_FOLDER = next((place for place in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if place.is_dir()), None)
"""The config files that come with the package: beside it in an installation, one folder up in a checkout."""

_imports_allowed = contextvars.ContextVar("_imports_allowed", default=False)


def load_config(config_file: str, options: Sequence[str] = (), import_modules: bool = True) -> CfgNode:
    """The defaults, changed by a yaml file ("": none) and then by ``KEY VALUE`` pairs.

    Args:
        config_file: a path, or the name of a config that comes with the package (``CLIP3D/celeb.yml``).
        options: key, value, key, value ...
        import_modules: imports the modules that ``IMPORTS`` names. False for a config from somebody else: then the
            caller decides.

    Raises:
        ClearError: a file, key, value or module that cannot be used; names it, and for a key the nearest known one.

    >>> cfg = load_config("CLIP3D/celeb.yml", ["SOLVER.MAX_EPOCH", "60"])
    >>> cfg.MODEL.META_ARCHITECTURE, cfg.DATASETS.NAMES, cfg.SOLVER.MAX_EPOCH
    ('CLIP3DReID', ('CelebReID',), 60)
    >>> load_config("", ["SOLVER.MAX_EPOCHS", "60"])
    Traceback (most recent call last):
    fastreid_clip3d.errors.ClearError: the command line: unknown key SOLVER.MAX_EPOCHS. Did you mean SOLVER.MAX_...
    """
    cfg = get_cfg()
    if config_file:
        path = find_config(config_file)
        _merge(cfg, _read_yaml(path), "", str(path))
    if len(options) % 2:
        raise ClearError(f"Options come in pairs, KEY VALUE; {options[-1]!r} has no partner in: {' '.join(options)}")
    for key, value in zip(options[::2], options[1::2]):
        _merge_value(cfg, key, CfgNode._decode_cfg_value(value), "the command line")
    check_values(cfg)
    if import_modules:
        import_named_modules(cfg)
    return cfg


def check_values(cfg: CfgNode) -> None:
    """Refuses values of our keys that are out of range.

    Raises:
        ClearError: the key, its value and what it may be.
    """
    for key, allowed in ALLOWED.items():
        value = _lookup(cfg, key)
        if not allowed.holds(value):
            near = f". {did_you_mean(str(value), allowed.words)}" if allowed.words else "."
            raise ClearError(f"{key} is {value!r}; it must be {'one of ' * bool(allowed.words)}{allowed.text}{near}")
    mlp, width = cfg.MODEL.HEADS.MLP, cfg.MODEL.BACKBONE.FEAT_DIM
    if mlp.RESIDUAL and mlp.OUT_DIM not in (0, width):
        raise ClearError(
            f"MODEL.HEADS.MLP.RESIDUAL adds the pooled features, {width} wide (MODEL.BACKBONE.FEAT_DIM), to an output "
            f"of MODEL.HEADS.MLP.OUT_DIM {mlp.OUT_DIM}. Set OUT_DIM to 0 or {width}, or RESIDUAL False."
        )


def find_config(name: str, named_by: str = "--config-file") -> Path:
    """The file that the flag `named_by` names: a path, or a config that comes with the package.

    Raises:
        ClearError: there is no such file; names the nearest config of the package.
    """
    if os.path.isfile(name):
        return Path(name)
    if os.path.isdir(name):
        raise ClearError(f"{named_by} {name}: this is a folder; name a yaml file in it.")
    own = name.removeprefix("configs/")
    if CONFIG_FOLDER and (CONFIG_FOLDER / own).is_file():
        return CONFIG_FOLDER / own
    known = (
        sorted(path.relative_to(CONFIG_FOLDER).as_posix() for path in CONFIG_FOLDER.rglob("*.yml"))
        if CONFIG_FOLDER
        else []
    )
    raise ClearError(f"{named_by} {name}: no such file. {did_you_mean(own, known, shown=0)}")


def import_named_modules(cfg: CfgNode) -> None:
    """Imports the modules of ``IMPORTS``, from the working folder or Python's path; their classes register themselves.

    Raises:
        ClearError: a module that is not there or fails.
    """
    for name in cfg.IMPORTS:
        if name in sys.modules:
            continue
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.split(".")[0] and error.name != name:
                raise
            raise ClearError(
                f"IMPORTS names the module {name!r}, which Python does not find in {os.getcwd()} or on its path. Start "
                f"the command where {name.split('.')[0]}.py lies, or add its folder to PYTHONPATH."
            ) from error


@contextlib.contextmanager
def allowed_imports() -> Iterator[None]:
    """Inside the ``with``, code of models' authors may run, first of all what a run names: ``--allow-imports``."""
    permission = _imports_allowed.set(True)
    try:
        yield
    finally:
        _imports_allowed.reset(permission)


def imports_are_allowed() -> bool:
    """Whether ``--allow-imports`` was given to the command that runs: code of models' authors may run."""
    return _imports_allowed.get()


def load_run_config(config_file: str | Path, allow_imports: bool = False) -> CfgNode:
    """The config of a trained run, whose modules (``IMPORTS``) are its author's code and run only with permission.

    Raises:
        ClearError: modules that are neither imported yet nor allowed; names them and how to allow them.
    """
    cfg = load_config(str(config_file), import_modules=False)
    unknown = [name for name in cfg.IMPORTS if name not in sys.modules]
    if unknown and not (allow_imports or imports_are_allowed()):
        raise ClearError(
            f"{config_file} names modules of the run's author that would be imported (IMPORTS): {', '.join(unknown)}. "
            "If you trust this run, allow it: load_model(..., allow_imports=True), or --allow-imports behind a command."
        )
    import_named_modules(cfg)
    return cfg


def inference_config(cfg: CfgNode) -> CfgNode:
    """The same student without anything that only training needs: no teacher, no body model, no pretrained file."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.LOSSES.NAME = tuple(name for name in cfg.MODEL.LOSSES.NAME if name not in OURS)
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.COMPILE = False
    return cfg


def all_keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config that has a value."""
    for name, value in cfg.items():
        if isinstance(value, CfgNode) and len(value):
            yield from all_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A yaml file's keys and values on top of those of the file that its ``_BASE_`` names."""
    if path.resolve() in seen:
        raise ClearError(f"{path}: its {BASE} leads back to itself ({' -> '.join(map(str, (*seen, path.resolve())))}).")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ClearError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error
    except (yaml.YAMLError, OSError, RecursionError) as error:
        raise ClearError(f"{path} cannot be read as a config: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ClearError(f"{path}: expected keys and values, found {values!r}.")
    base = values.pop(BASE, None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ClearError(f"{path}: {BASE} is {base!r}; it must be the path of a yaml file.")
    base_path = path.parent / os.path.expanduser(base)
    if not base_path.is_file():
        raise ClearError(f"{path}: its {BASE} {base} is not there ({base_path}).")
    merged = _read_yaml(base_path, (*seen, path.resolve()))
    _overlay(values, merged, "", path)
    return merged


def _overlay(values: Mapping[str, Any], below: dict[str, Any], prefix: str, path: Path) -> None:
    """Puts nested `values` over `below`, in place."""
    for key, value in values.items():
        if isinstance(value, Mapping) and key in below:
            if not isinstance(below[key], dict):
                raise ClearError(f"{path}: {prefix}{key} is a group of keys here and a value in its {BASE}.")
            _overlay(value, below[key], f"{prefix}{key}.", path)
        else:
            below[key] = value


def _merge(cfg: CfgNode, values: Mapping[str, Any], prefix: str, source: str) -> None:
    """Sets every leaf of a nested mapping."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and isinstance(_lookup(cfg, key), CfgNode):
            _merge(cfg, value, key + ".", source)
        else:
            _merge_value(cfg, key, value, source)


def _merge_value(cfg: CfgNode, key: str, value: Any, source: str) -> None:
    current = _lookup(cfg, key)
    if current is _MISSING:
        raise ClearError(f"{source}: unknown key {key}. {did_you_mean(key, list(all_keys(cfg)), shown=0)}")
    if isinstance(current, CfgNode):
        raise ClearError(f"{source}: {key} is a group of keys ({', '.join(current)}), not a value.")
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if any(isinstance(number, float) and not math.isfinite(number) for number in _leaves(value)):
        raise ClearError(f"{source}: {key} is {value!r}; it must be a finite number.")
    try:
        cfg.merge_from_list([key, value])
    except (ValueError, KeyError, AssertionError) as error:
        raise ClearError(
            f"{source}: {key} is {value!r}, a {type(value).__name__}; it must be a {type(current).__name__}, like its "
            f"default {current!r}."
        ) from error


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


_MISSING = object()


def _lookup(cfg: CfgNode, key: str) -> Any:
    """The value or group at a dotted key, or _MISSING."""
    node: Any = cfg
    for part in str(key).split("."):
        if not isinstance(node, CfgNode) or part not in node:
            return _MISSING
        node = node[part]
    return node
