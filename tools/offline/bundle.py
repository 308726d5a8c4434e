"""A folder with everything that training, evaluation and the CUDA tests need on a machine without a network."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterable, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from fastreid_clip3d.common.dataset_root import below_dataset_root
from fastreid_clip3d.errors import ClearError
from tools.offline.requirements import STOCK, needed_packages
from tools.offline.wheels import ROOT, build_own, fetch, requirements_of

IN_CHECKOUT = ("tests", "tools", "configs", "pyproject.toml", "Makefile")
"""For the tests and tools; the package itself is a wheel."""

USED = (
    "huggingface-hub", "numpy", "open-clip-torch", "opencv-python-headless", "pillow", "pyyaml", "rich", "safetensors",
    "scikit-learn", "scipy", "tabulate", "tensorboard", "termcolor", "threadpoolctl", "timm", "torch", "torchvision",
    "tqdm", "yacs",
)  # fmt: skip
"""What a training imports; the install script looks for those of them that the machine is said to have."""


def make_bundle(
    output: Path,
    *,
    python: str = "3.12",
    platform: str = "manylinux_2_28_x86_64",
    machine: Iterable[str] = STOCK,
    wanted: Sequence[str] = (),
    data: Sequence[str] = (),
    weights: Sequence[str] = (),
) -> dict[str, int]:
    """Writes the bundle.

    Args:
        output: folder to write, empty or missing.
        python, platform: of the machine.
        machine: canonical names of the packages that it has.
        wanted: optional libraries to take along.
        data: datasets, as folders below FASTREID_DATASETS or as paths; they become one archive.
        weights: files.

    Returns:
        Bytes of each file, by its path in the bundle.

    Raises:
        ClearError: the folder is not empty, something to take along is missing, or pip cannot get a wheel.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ClearError(f"--output {output} is there already; give a new folder.")
    folders = [below_dataset_root(name) for name in data]
    for path in (*folders, *map(Path, weights)):
        if not path.exists():
            raise ClearError(f"There is no {path} (named by --data or --weights).")
    machine = frozenset(machine)
    output.mkdir(parents=True, exist_ok=True)
    own = build_own(output / "wheels")
    packages = needed_packages(requirements_of(own), machine, wanted, python)
    fetch(packages, output / "wheels", python, platform)
    _archive_checkout(output / "checkout.tar.gz")
    if folders:
        with tarfile.open(output / "data.tar", "w") as archive:  # pictures do not shrink
            for folder in folders:
                archive.add(folder, folder.name)
    for file in weights:
        (output / "weights").mkdir(exist_ok=True)
        shutil.copy2(file, output / "weights")
    assumed = {"python": python, "platform": platform, "packages": packages, "assumed": _modules_of(machine)}
    (output / "machine.json").write_text(json.dumps(assumed, indent=2) + "\n")
    shutil.copy2(Path(__file__).with_name("install.sh"), output / "install.sh")
    files = [path for path in sorted(output.rglob("*")) if path.is_file()]
    return {path.relative_to(output).as_posix(): path.stat().st_size for path in files}


def _archive_checkout(path: Path) -> None:
    def cleaned(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in entry.name else entry

    with tarfile.open(path, "w:gz") as archive:
        for name in IN_CHECKOUT:
            archive.add(ROOT / name, f"checkout/{name}", filter=cleaned)


def _modules_of(present: Iterable[str]) -> dict[str, str]:
    """A module to look for, by distribution: of the present ones that a training imports."""
    by_distribution: dict[str, str] = {}
    for module, names in packages_distributions().items():
        for name in names:
            if not module.startswith("_") and not module.endswith("-stubs"):
                by_distribution.setdefault(canonicalize_name(name), module)
    return {name: by_distribution[name] for name in sorted(set(USED) & set(present)) if name in by_distribution}
