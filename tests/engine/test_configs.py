"""The config keys: declared once, all read, and every yaml file trains."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fastreid_clip3d.config import get_cfg
from fastreid_clip3d.config_loading import all_keys, load_config
from fastreid_clip3d.errors import ClearError
from tests.conftest import REPOSITORY

CONFIGS = sorted(path for path in (REPOSITORY / "configs").rglob("*.yml") if not path.name.startswith("Base-"))


def attribute_paths(folder: Path) -> set[str]:
    """Every dotted chain of upper-case attributes in the source below a folder, such as MODEL.LOSSES.OT."""
    found = set()
    for source in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            parts: list[str] = []
            while isinstance(node, ast.Attribute):
                if node.attr.isupper():
                    parts.insert(0, node.attr)
                node = node.value
            found.update(".".join(parts[start:]) for start in range(len(parts)))
    return found


def test_every_key_that_is_declared_is_read() -> None:
    from fastreid.config import get_cfg as fastreid_cfg

    ours = set(all_keys(get_cfg())) - set(all_keys(fastreid_cfg()))
    package = REPOSITORY / "fastreid_clip3d"
    paths: set[str] = set()
    for source in package.iterdir():
        if source.is_dir():
            paths |= attribute_paths(source)
    last_names = {path.split(".")[-1] for path in paths}
    unread = sorted(key for key in ours if key.split(".")[-1] not in last_names)
    assert unread == []


def test_every_key_that_is_read_is_declared() -> None:
    declared = {suffix for key in all_keys(get_cfg()) for suffix in suffixes(key)}
    for path in attribute_paths(REPOSITORY / "fastreid_clip3d" / "engine") | attribute_paths(
        REPOSITORY / "fastreid_clip3d" / "modeling" / "meta_arch"
    ):
        if path.startswith(("MODEL.", "SOLVER.", "DATASETS.", "DATALOADER.", "TEST.", "INPUT.")):
            assert path in declared, path


def suffixes(key: str) -> list[str]:
    """A key and the groups it stands in."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


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
        (["MODEL.LOSSES.OT.REGG", "1"], r"unknown key MODEL.LOSSES.OT.REGG. Did you mean MODEL.LOSSES.OT.REG\?"),
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
        ("", "cannot be read as a config"),
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
