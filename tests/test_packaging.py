"""The wheel: what it holds, what it requires, and that it trains and searches where there is no checkout."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import onnx
import pytest
from packaging.requirements import Requirement

from tests.conftest import REPOSITORY
from tests.engine.tiny_run import options, write_datasets

INTO_THE_WHEEL = ("fastreid_clip3d", "configs")
ROOT_FILES = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "NOTICE",
    "CHANGELOG.md",
    "CITATION.cff",
)
INSTALLED_BY_HAND = {"fastreid"}
"""Not declared: fast-reid's own requirements would replace the torch that is installed."""

Clip3d = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build reads, so that the build leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in INTO_THE_WHEEL:
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ROOT_FILES:
        shutil.copy2(REPOSITORY / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist that is built from the sources."""
    folder = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)], folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_datasets(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def clip3d(wheel: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Clip3d:
    """Runs ``python -m fastreid_clip3d WORDS`` with the installed wheel, in a folder outside the checkout."""
    target, elsewhere = tmp_path_factory.mktemp("target"), tmp_path_factory.mktemp("elsewhere")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", "--no-index", "--target", str(target), str(wheel)], elsewhere)
    environment = {**os.environ, "PYTHONPATH": str(target), "FASTREID_DATASETS": str(data)}

    where = "import importlib.util as util; print(util.find_spec('fastreid_clip3d').origin)"
    found = _run([sys.executable, "-c", where], elsewhere, environment).stdout.strip()
    assert Path(found) == target / "fastreid_clip3d" / "__init__.py"
    return lambda *words: _run([sys.executable, "-m", "fastreid_clip3d", *words], elsewhere, environment)


def _run(
    command: Sequence[str], folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


def test_the_wheel_holds_package_assets_and_configs_and_nothing_else(source: Path, wheel: Path) -> None:
    package = [path for path in (source / "fastreid_clip3d").rglob("*") if path.is_file()]
    configs = [path for path in (source / "configs").rglob("*") if path.is_file()]
    expected = {path.relative_to(source).as_posix() for path in package}
    expected |= {f"fastreid_clip3d/{path.relative_to(source).as_posix()}" for path in configs}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected
    assert "fastreid_clip3d/configs/CLIP3D/celeb.yml" in names
    assert "fastreid_clip3d/body/assets/body_models.npz" in names


def test_the_wheel_carries_licence_and_notice(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    for name in ("LICENSE", "NOTICE"):
        (stored,) = (stored for stored in archive.namelist() if stored.endswith(f".dist-info/licenses/{name}"))
        assert archive.read(stored) == (REPOSITORY / name).read_bytes()


def test_every_imported_library_is_declared(wheel: Path) -> None:
    (metadata,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
    required = [Requirement(line.split(": ", 1)[1]) for line in lines if line.startswith("Requires-Dist: ")]
    for_users = [one for one in required if not (one.marker and one.marker.evaluate({"extra": "dev"}))]
    for_users += [one for one in required if not one.marker]
    declared = {_plain(one.name) for one in for_users}
    distributions = packages_distributions()
    undeclared = {}
    for path in sorted((REPOSITORY / "fastreid_clip3d").rglob("*.py")):
        for library in _imported_libraries(path) - INSTALLED_BY_HAND:
            assert library in distributions, f"{path} imports {library}, which is not installed"
            if not declared & {_plain(name) for name in distributions[library]}:
                undeclared[library] = str(path)
    assert not undeclared


def _imported_libraries(path: Path) -> set[str]:
    """Top-level names of the third-party modules that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"fastreid_clip3d"}


def _plain(distribution: str) -> str:
    return re.sub("[-_.]+", "-", distribution).lower()


def test_the_installed_package_trains_evaluates_exports_extracts_and_searches(
    clip3d: Clip3d, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    keys = options(data, run, TEST__EVALUATION__SAVE_FEATURES="True")
    clip3d("train", "--config-file", "CLIP3D/celeb.yml", *keys)
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line] == [0, 1]

    features, scores = run / "evaluation" / "CSVDataset_features.npz", tmp_path / "scores.json"
    clip3d("evaluate", "--features", str(features), "--protocols", "CC", "--json", str(scores))
    after_training = next(line["CSVDataset/CC/mAP"] for line in lines if "CSVDataset/CC/mAP" in line)
    assert json.loads(scores.read_text())["CC"]["mAP"] == pytest.approx(after_training, abs=1e-4)

    student = tmp_path / "student.onnx"
    clip3d("export", "--model", str(run), "--output", str(student))
    onnx.checker.check_model(str(student))

    gallery, vectors = tmp_path / "gallery", tmp_path / "vectors.npz"
    gallery.mkdir()
    for path in data.glob("gallery_*_0_0.png"):
        shutil.copy2(path, gallery)
    clip3d("extract", str(gallery), "--model", str(student), "--output", str(vectors))
    with np.load(vectors) as extracted:
        names = [Path(path).name for path in extracted["paths"]]
        cosines = extracted["features"] @ extracted["features"].T
    assert sorted(names) == [f"gallery_{person}_0_0.png" for person in range(8)]

    query, found = names[3], tmp_path / "found.json"
    words = ("--query", str(gallery / query), "--gallery", str(gallery), "--json", str(found))
    clip3d("search", "--model", str(run), *words)
    (answer,) = json.loads(found.read_text())["answers"]
    similarities = {Path(hit["name"]).name: hit["similarity"] for hit in answer["hits"]}
    others = {name: cosine for name, cosine in zip(names, cosines[3]) if name != query}
    assert similarities == pytest.approx(others, abs=1e-4)
