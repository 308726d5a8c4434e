"""Configs by name and by path, and files that are none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fastreid_clip3d import config_loading
from fastreid_clip3d.config_loading import find_config, load_config, load_run_config
from fastreid_clip3d.errors import ClearError
from tests.conftest import REPOSITORY


def test_a_config_of_the_package_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = (REPOSITORY / "configs" / "CLIP3D" / "celeb.yml").read_text()
    for name in ("CLIP3D/celeb.yml", "configs/CLIP3D/celeb.yml"):
        assert find_config(name).read_text() == wanted
    with pytest.raises(ClearError, match="no such file. Did you mean CLIP3D/celeb.yml"):
        find_config("CLIP3D/celeeb.yml")
    with pytest.raises(ClearError, match="this is a folder"):
        find_config(str(tmp_path))


def test_a_base_that_leads_back_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("_BASE_: b.yml\n")
    (tmp_path / "b.yml").write_text("_BASE_: a.yml\n")
    with pytest.raises(ClearError, match="leads back to itself"):
        load_config(str(tmp_path / "a.yml"))
    (tmp_path / "self.yml").write_text("_BASE_: self.yml\n")
    with pytest.raises(ClearError, match="self.yml: its _BASE_ leads back to itself"):
        load_config(str(tmp_path / "self.yml"))


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf"])
def test_numbers_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "my.yml").write_text(f"SOLVER:\n  BASE_LR: {text}\n")
    with pytest.raises(ClearError, match="my.yml: SOLVER.BASE_LR is .*; it must be a finite number"):
        load_config(str(tmp_path / "my.yml"))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_named(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "my.yml").write_bytes("# Größe\nSEED: 1\n".encode(encoding))
    with pytest.raises(ClearError, match="my.yml is not UTF-8 text .* Save it as UTF-8"):
        load_config(str(tmp_path / "my.yml"))


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in a folder where the user works, which is not on Python's path."""
    (tmp_path / "my_own_reid.py").write_text("loaded = True\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    yield "my_own_reid"
    sys.modules.pop("my_own_reid", None)


def test_modules_of_ones_own_are_imported(own_module: str, tmp_path: Path) -> None:
    load_config("", ["IMPORTS", f"('{own_module}',)"])
    assert sys.modules[own_module].loaded
    with pytest.raises(ClearError, match="IMPORTS names the module 'not_there', which Python does not find"):
        load_config("", ["IMPORTS", "('not_there',)"])


def test_modules_of_a_run_are_imported_only_with_permission(own_module: str, tmp_path: Path) -> None:
    cfg = load_config("", ["IMPORTS", f"('{own_module}',)"], import_modules=False)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    with pytest.raises(
        ClearError, match=r"config.yaml names modules .*my_own_reid.*allow_imports=True.*--allow-imports"
    ):
        load_run_config(tmp_path / "config.yaml")
    assert own_module not in sys.modules
    assert (own_module,) == load_run_config(tmp_path / "config.yaml", allow_imports=True).IMPORTS
    assert own_module in sys.modules
    load_run_config(tmp_path / "config.yaml")  # imported already: nothing foreign runs
    del sys.modules[own_module]
    with config_loading.allowed_imports():
        load_run_config(tmp_path / "config.yaml")
    assert own_module in sys.modules
    del sys.modules[own_module]
    with pytest.raises(ClearError, match="names modules"):  # the permission ends with its command
        load_run_config(tmp_path / "config.yaml")
