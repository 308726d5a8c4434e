"""The config keys: declared once, all read, and every yaml file trains."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
from fastreid.config import CfgNode
from fastreid.config import get_cfg as fastreid_cfg

from fastreid_clip3d.config import get_cfg
from fastreid_clip3d.config_loading import all_keys, load_config
from fastreid_clip3d.errors import ClearError
from tests.conftest import REPOSITORY

CONFIGS = sorted(path for path in (REPOSITORY / "configs").rglob("*.yml") if not path.name.startswith("Base-"))


class ConfigReads(ast.NodeVisitor):
    """Whole dotted names of the config keys and groups that a source reads, such as MODEL.LOSSES.OT.REG.

    A config is a variable or attribute whose name ends in ``cfg``. Variables that stand for one of its groups, such as
    ``keys = cfg.MODEL.TEACHER``, are followed to their next assignment, within their function.
    """

    def __init__(self, source: str) -> None:
        self.read: set[str] = set()
        self._groups: dict[str, str] = {}
        self.visit(ast.parse(source))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outside, self._groups = self._groups, dict(self._groups)
        for argument in (*node.args.args, *node.args.kwonlyargs):
            self._groups.pop(argument.arg, None)
        self.generic_visit(node)
        self._groups = outside

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            together = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            pairs = zip(target.elts, node.value.elts) if together else [(target, node.value)]
            for variable, value in pairs:
                self._assign(variable, self._key(value))

    def _assign(self, variable: ast.expr, key: str | None) -> None:
        for name in [node.id for node in ast.walk(variable) if isinstance(node, ast.Name)]:
            self._groups.pop(name, None)
        if isinstance(variable, ast.Name) and key:
            self._groups[variable.id] = key

    def visit_Attribute(self, node: ast.Attribute) -> None:
        key = self._key(node)
        if key and isinstance(node.ctx, ast.Load):
            self.read.add(key)
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        """``cfg.DATASETS.get("CSV", ())`` reads a key as well."""
        group = self._key(node.func.value) if isinstance(node.func, ast.Attribute) and node.func.attr == "get" else None
        if group is not None and isinstance(node.args[0], ast.Constant):
            self.read.add(f"{group}.{node.args[0].value}".lstrip("."))
        self.generic_visit(node)

    def _key(self, node: ast.expr) -> str | None:
        """The dotted name of a key or group, "" of a whole config, None of anything else."""
        if isinstance(node, ast.Name) and node.id in self._groups:
            return self._groups[node.id]
        if isinstance(node, ast.Attribute) and node.attr.isupper():
            group = self._key(node.value)
            return None if group is None else f"{group}.{node.attr}".lstrip(".")
        name = getattr(node, "id", getattr(node, "attr", ""))
        return "" if name.endswith("cfg") else None


def keys_read_below(*folders: str) -> dict[str, list[str]]:
    """The files that read a key or group, by its dotted name."""
    found: dict[str, list[str]] = {}
    for path in (path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))):
        if path != REPOSITORY / "fastreid_clip3d" / "config.py":
            for key in ConfigReads(path.read_text(encoding="utf-8")).read:
                found.setdefault(key, []).append(path.relative_to(REPOSITORY).as_posix())
    return found


def test_every_key_that_is_declared_is_read() -> None:
    ours = set(all_keys(get_cfg())) - set(all_keys(fastreid_cfg()))
    assert sorted(ours - keys_read_below("fastreid_clip3d").keys()) == []


def test_every_key_that_is_read_is_declared() -> None:
    declared = {group for key in all_keys(get_cfg()) for group in groups_of(key)}
    found = keys_read_below("fastreid_clip3d", "tools")
    assert {key: files for key, files in found.items() if key not in declared} == {}


def groups_of(key: str) -> list[str]:
    """The groups that a key stands in, and the key."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def test_keys_are_found_by_their_whole_names() -> None:
    source = """
def first(self, cfg):
    losses, scale = cfg.MODEL.LOSSES, self.cfg.MODEL.LOSSES.OT.SCALE
    keys = losses.OT
    print(keys.REG)
    keys = self._full_cfg.TEST
    print(keys.METRIC, cfg.DATASETS.get("CSV", ()), {}.get("OTHER"))
    cfg.MODEL.WRITTEN = np.PI.LARGE

def second(keys, losses):
    print(keys.UNKNOWN, losses.UNKNOWN)
"""
    assert ConfigReads(source).read == {
        "MODEL", "MODEL.LOSSES", "MODEL.LOSSES.OT", "MODEL.LOSSES.OT.SCALE", "MODEL.LOSSES.OT.REG",
        "TEST", "TEST.METRIC", "DATASETS", "DATASETS.CSV",
    }  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(REPOSITORY / "configs")))
def test_every_yaml_names_only_known_keys_and_its_own_output(path: Path) -> None:
    cfg = load_config(str(path))
    assert cfg.OUTPUT_DIR not in ("", "logs/")


def test_no_two_yaml_files_write_to_the_same_folder() -> None:
    folders = [load_config(str(path)).OUTPUT_DIR for path in CONFIGS]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["MODEL.LOSSES.OT.REGG", "1"], r"unknown key MODEL.LOSSES.OT.REGG. Did you mean MODEL.LOSSES.OT.REG or "),
        (["SOLVER.BASE_LR", "fast"], "SOLVER.BASE_LR is 'fast', a str; it must be a float"),
        (["SOLVER.MAX_EPOCH", "2.5"], "SOLVER.MAX_EPOCH is 2.5, a float; it must be a int"),
        (["SOLVER.MAX_EPOCH"], "come in pairs"),
        (["MODEL.TEACHER", "x"], "is a group of keys"),
    ],
)
def test_options_that_cannot_be_are_named(options: list[str], words: str) -> None:
    with pytest.raises(ClearError, match=words):
        load_config("", options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SOLVER:\n  MAX_EPOCH: many\n", "must be a int"),
        ("MODEL:\n  LOSES:\n    NAME: x\n", "unknown key MODEL.LOSES"),
        ("SOLVER: [1, 2]\n", "is a group of keys"),
        ("SOLVER: {BASE_LR: 1\n", "cannot be read as a config"),
        ("- 1\n- 2\n", "expected keys and values"),
        ("_BASE_: nowhere.yml\n", "nowhere.yml"),
        ("SOLVER: {BASE_LR: .nan}\n", "SOLVER.BASE_LR is nan; it must be a finite number"),
    ],
)
def test_yaml_files_that_cannot_be_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "my.yml"
    path.write_text(text)
    with pytest.raises(ClearError, match=words) as error:
        load_config(str(path))
    assert "my.yml" in str(error.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ClearError, match="gone.yml: no such file"):
        load_config("gone.yml")


def test_numbers_may_be_written_as_python_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "my.yml"
    path.write_text("SOLVER: {BASE_LR: 3e-4, WEIGHT_DECAY: 1}\n")
    cfg = load_config(str(path), ["SOLVER.MOMENTUM", "1"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.MOMENTUM) == (3e-4, 1.0, 1.0)


def test_the_papers_setting() -> None:
    """Section 3.5 and 4 of the paper."""
    cfg = load_config(str(REPOSITORY / "configs" / "CLIP3D" / "celeb.yml"))
    losses = cfg.MODEL.LOSSES
    assert (losses.OT.SCALE, losses.GLOBAL_DISTILL.SCALE) == (0.3, 0.5)
    assert losses.OT.SYNTHETIC_SCALE == losses.BODY_SHAPE.SCALE == 0.3
    assert (losses.OT.REG, losses.OT.NUM_ITERS, cfg.SOLVER.OPT) == (1.0, 1, "Adam")
    assert (cfg.MODEL.TEACHER.NAME, cfg.MODEL.TEACHER.PRETRAINED) == ("ViT-L-14", "openai")
    assert (cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH) == ("build_resnet_backbone", "50x")
    assert cfg.SOLVER.IMS_PER_BATCH == cfg.DATALOADER.SYNTHETIC_PER_BATCH == 64
    assert not cfg.MODEL.HEADS.WITH_BNNECK


def test_the_guided_reading_changes_what_our_measurements_ask_for_and_nothing_else() -> None:
    folder = REPOSITORY / "configs" / "CLIP3D"
    letter, guided = (load_config(str(folder / name)) for name in ("celeb.yml", "celeb_guided.yml"))
    assert {key for key in all_keys(letter) if value_of(letter, key) != value_of(guided, key)} == {
        "MODEL.LOSSES.BODY_SHAPE.IGNORE_SIZE", "MODEL.LOSSES.BODY_SHAPE.SCALE", "MODEL.LOSSES.GLOBAL_DISTILL.REDUCTION",
        "MODEL.LOSSES.OT.CENTER", "MODEL.LOSSES.OT.CONTRAST", "MODEL.SYNTHETIC_STATISTICS",
        "DATALOADER.NUM_INSTANCE", "OUTPUT_DIR",
    }  # fmt: skip


def test_the_demos_student_without_guidance_is_the_same_student() -> None:
    folder = REPOSITORY / "configs"
    method = load_config(str(folder / "CLIP3D" / "synthcc.yml"))
    without = load_config(str(folder / "Baselines" / "synthcc_without_guidance.yml"))
    assert {key for key in all_keys(method) if value_of(method, key) != value_of(without, key)} == {
        "MODEL.LOSSES.NAME", "DATALOADER.SYNTHETIC_PER_BATCH", "OUTPUT_DIR",
    }  # fmt: skip
    assert without.MODEL.LOSSES.NAME == ("CrossEntropyLoss",)


def value_of(cfg: CfgNode, key: str) -> object:
    return functools.reduce(getattr, key.split("."), cfg)
