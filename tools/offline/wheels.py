"""Wheels for another machine, fetched or built by pip."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from fastreid_clip3d.errors import ClearError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("fastreid_clip3d", "configs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICE")
MORE_SOURCES = ("CHANGELOG.md", "CITATION.cff")
"""What the build of the package's own wheel reads."""

MINORS = (5, 12, 17, 24, 27, 28, 31, 34, 35, 39)
"""manylinux_2_N tags in use; pip takes only the tags that are named."""

OLD_NAMES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


def compatible_platforms(platform: str) -> list[str]:
    """The platform's tag and the older ones whose wheels it runs, newest first.

    Raises:
        ClearError: the tag is none of manylinux.
    """
    found = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", platform)
    if not found:
        raise ClearError(
            f"--platform {platform}: give a tag like manylinux_2_28_x86_64 (glibc 2.28, see `ldd --version` there)."
        )
    newest, processor = int(found[1]), found[2]
    tags = []
    for minor in sorted({newest, *(minor for minor in MINORS if minor < newest)}, reverse=True):
        tags.append(f"manylinux_2_{minor}_{processor}")
        if minor in OLD_NAMES:
            tags.append(f"{OLD_NAMES[minor]}_{processor}")
    return tags


def fetch(packages: Mapping[str, str], folder: Path, python: str, platform: str) -> list[Path]:
    """Downloads the packages' wheels for a Python and a platform; a pure Python package without a wheel is built.

    Raises:
        ClearError: a package cannot be had for that machine; pip's own words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tags = [word for tag in compatible_platforms(platform) for word in ("--platform", tag)]
    target = ["--python-version", python, "--implementation", "cp", *tags]
    wanted = [f"{name}=={version}" for name, version in packages.items()]
    download = ["download", "--no-deps", "--only-binary=:all:", *target, "--dest", str(folder)]
    if wanted and _pip([*download, *wanted]).returncode:
        for one in wanted:  # find out which, and build it
            if _pip([*download, one]).returncode:
                _build(one, folder)
    return sorted(folder.glob("*.whl"))


def build_own(folder: Path) -> Path:
    """Builds the package's own wheel from the checkout, in a copy of it, so that the checkout stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        for name in (*SOURCES, *MORE_SOURCES):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, Path(place, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, place)
        _build(place, folder)
    (wheel,) = folder.glob("fastreid_clip3d-*.whl")
    return wheel


def requirements_of(wheel: Path) -> list[str]:
    """The requirements in a wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    return [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]


def _build(what: str, folder: Path) -> None:
    """Builds a wheel from sources; only one without compiled code runs elsewhere."""
    with tempfile.TemporaryDirectory() as place:
        done = _pip(["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, what])
        built = list(Path(place).glob("*.whl"))
        if done.returncode or len(built) != 1:
            raise ClearError(
                f"pip has no wheel of {what} for that machine and cannot build one: {done.stderr.strip()[-600:]}"
            )
        if not built[0].name.endswith("-none-any.whl"):
            raise ClearError(
                f"pip has no wheel of {what} for that machine, and the wheel built here ({built[0].name}) holds "
                "compiled code that would not run there."
            )
        shutil.move(built[0], folder / built[0].name)


def _pip(words: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", words[0], "--quiet", *words[1:]]
    return subprocess.run(command, capture_output=True, text=True)
