"""Which packages a machine lacks: what fastreid_clip3d requires, less what is there and what few runs use."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Iterable
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from fastreid_clip3d.errors import OPTIONAL, ClearError

STOCK = frozenset({
    "absl-py", "certifi", "charset-normalizer", "filelock", "fsspec", "grpcio", "hf-xet", "httpx",
    "huggingface-hub", "idna", "jinja2", "joblib", "markdown", "markupsafe", "mpmath", "networkx", "numpy",
    "opencv-python-headless", "packaging", "pillow", "protobuf", "pyyaml", "regex", "requests", "rich",
    "safetensors", "scikit-learn", "scipy", "setuptools", "sympy", "tensorboard", "tensorboard-data-server",
    "threadpoolctl", "torch", "torchvision", "tqdm", "triton", "typing-extensions", "urllib3", "werkzeug",
})  # fmt: skip
"""What a research machine with torch has as a rule; ``--machine`` replaces it by what one machine has."""

ALIASES = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "faiss-cpu": ("faiss-gpu", "faiss-gpu-cu12", "faiss"),
    "easypytorch3d": ("pytorch3d",),
    "onnxruntime": ("onnxruntime-gpu",),
}
"""Other distributions of the same module."""

NEVER = ("torch", "torchvision", "torchaudio", "triton", "numpy", "nvidia-", "cuda-")
"""Packages that belong to the machine's torch; none of them is ever bundled."""


def needed_packages(
    required: Iterable[str], present: Collection[str], wanted: Iterable[str] = (), python: str = "3.12"
) -> dict[str, str]:
    """Distributions to bundle, by name, with the version that is installed here.

    Args:
        required: what the package's own wheel requires, as in its metadata.
        present: canonical names of what the machine has. What these require is there too.
        wanted: optional libraries, by the name of their import, see ``errors.OPTIONAL``.
        python: the machine's Python, for requirements that depend on it.

    Raises:
        ClearError: `wanted` names none of them, or a required package is not installed here or belongs to torch.
    """
    unknown = sorted(set(wanted) - set(OPTIONAL))
    if unknown:
        raise ClearError(f"--with {' '.join(unknown)}: choose from {', '.join(OPTIONAL)}.")
    left_out = {canonicalize_name(package) for name, package in OPTIONAL.items() if name not in wanted}
    roots = ["fastreid", "pytest", *_names_of(required, python)]
    waiting = [canonicalize_name(name) for name in (*roots, *(OPTIONAL[name] for name in wanted))]
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop(0)
        if name in found or name in left_out or _is_present(name, present):
            continue
        if name.startswith(NEVER):
            raise ClearError(
                f"The machine has no {name}. A bundle never contains parts of torch: install {name} there together "
                "with torch."
            )
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise ClearError(
                f"{name} is needed and not installed here: install the package with its requirements."
            ) from None
        if name != "fastreid":  # its own requirements are of 2022; ours name what it uses
            waiting += [
                canonicalize_name(other) for other in _names_of(importlib.metadata.requires(name) or [], python)
            ]
    return dict(sorted(found.items()))


def read_machine(path: Path) -> frozenset[str]:
    """Canonical names in the output of ``pip list --format=freeze`` (or ``pip freeze``) of the machine.

    Raises:
        ClearError: the file cannot be read or lists nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ClearError(f"--machine {path}: {error.strerror}.") from error
    names = set()
    for line in lines:
        try:
            names.add(canonicalize_name(Requirement(line.partition("#")[0].strip()).name))
        except InvalidRequirement:
            continue
    if "torch" not in names:
        raise ClearError(
            f"--machine {path}: no torch in it. Write the file with `pip list --format=freeze` on the machine."
        )
    return frozenset(names)


def _is_present(name: str, present: Collection[str]) -> bool:
    return any(other in present for other in (name, *ALIASES.get(name, ())))


def _names_of(required: Iterable[str], python: str) -> list[str]:
    """The names of those requirements that hold on a Linux machine with this Python, without extras."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux", "extra": ""}
    parsed = [Requirement(text) for text in required]
    return [one.name for one in parsed if one.marker is None or one.marker.evaluate(environment)]
