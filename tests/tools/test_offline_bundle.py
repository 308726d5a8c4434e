"""The bundle for a machine without a network: small, nothing of torch in it, and a training runs from it.

It asks the package index; without one the test fails and says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.tags import platform_tags

from fastreid_clip3d.errors import ClearError
from tests.conftest import REPOSITORY
from tests.engine.tiny_run import CONFIG, options, write_datasets
from tools.offline.bundle import make_bundle
from tools.offline.requirements import STOCK, needed_packages, read_machine
from tools.offline.wheels import compatible_platforms

MIB = 2**20
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
BUNDLED = ("fastreid_clip3d", "fastreid", "open_clip", "timm", "yacs", "termcolor", "ftfy")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_datasets(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    output = tmp_path_factory.mktemp("bundle") / "bundle"
    platform = next(tag for tag in platform_tags() if tag.startswith("manylinux_2_"))
    weights = [str(data / "teacher" / "open_clip_model.safetensors")]
    sizes = make_bundle(output, python=HERE, platform=platform, data=[str(data)], weights=weights)
    return output, sizes


@pytest.fixture(scope="module")
def installed(bundle: tuple[Path, dict[str, int]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment that install.sh asks for."""
    target = tmp_path_factory.mktemp("target") / "own folder"
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    command = ["sh", str(bundle[0] / "install.sh"), str(target), sys.executable]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("export ").partition("=") for line in done.stdout.splitlines()]
    return {name: value for name, _, value in lines}


def test_it_is_small_and_holds_nothing_of_torch(bundle: tuple[Path, dict[str, int]]) -> None:
    sizes = bundle[1]
    assert sum(sizes.values()) < 45 * MIB
    wheels = {Path(name).name.split("-")[0].lower() for name in sizes if name.startswith("wheels/")}
    assert wheels >= {"fastreid_clip3d", "fastreid", "open_clip_torch", "timm", "yacs", "pytest"}
    assert not [name for name in wheels if name.startswith(("torch", "numpy", "nvidia", "triton"))]
    assert "data.tar" in sizes and "weights/open_clip_model.safetensors" in sizes


def test_everything_comes_from_its_own_folder_and_torch_from_the_machine(installed: dict[str, str]) -> None:
    code = (
        "import importlib.util as util, json, sys; print(json.dumps([util.find_spec(n).origin for n in sys.argv[1:]]))"
    )
    words = [sys.executable, "-c", code, *BUNDLED, "torch", "numpy"]
    found = subprocess.run(words, env={**os.environ, **installed}, cwd="/", capture_output=True, text=True, check=True)
    *bundled, torch, numpy = json.loads(found.stdout)
    assert all(place.startswith(installed["PYTHONPATH"]) for place in bundled), bundled
    assert not torch.startswith(installed["PYTHONPATH"]) and not numpy.startswith(installed["PYTHONPATH"])


def test_two_iterations_train_from_it(installed: dict[str, str], data: Path, tmp_path: Path) -> None:
    dataset = Path(installed["FASTREID_DATASETS"]) / data.name
    environment = {**os.environ, **installed, "FASTREID_DATASETS": str(dataset)}
    words = ["train", "--config-file", "CLIP3D/celeb.yml", *options(dataset, tmp_path / "run")]
    command = [sys.executable, "-m", "fastreid_clip3d", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line] == [0, 1]


def test_the_tests_travel_too(installed: dict[str, str]) -> None:
    checkout = Path(installed["PYTHONPATH"]).parent / "checkout"
    assert (checkout / "tests" / "cuda" / "test_losses.py").is_file() and (checkout / "Makefile").is_file()
    assert (checkout / Path(CONFIG).relative_to(REPOSITORY)).is_file()
    assert not list(checkout.rglob("__pycache__"))


def test_another_python_is_refused_by_the_install_script(bundle: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    machine = bundle[0] / "machine.json"
    before = machine.read_text()
    try:
        for change, words in (
            ({"python": "3.99"}, "this bundle needs Python 3.99"),
            ({"assumed": {"gone": "gone_module"}}, "this machine has no gone"),
        ):
            machine.write_text(json.dumps({**json.loads(before), **change}))
            command = ["sh", str(bundle[0] / "install.sh"), str(tmp_path / "target"), sys.executable]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 1 and words in done.stderr
            assert not (tmp_path / "target" / "site").exists()
    finally:
        machine.write_text(before)


# -- what is needed, without an index --


def test_what_the_machine_has_is_left_out_with_what_that_requires() -> None:
    required = ["yacs>=0.1", "timm>=1", "faiss-cpu", "numpy", 'smplx; extra == "smpl"']
    found = needed_packages(required, STOCK, python="3.12")
    assert {"yacs", "timm", "fastreid", "pytest"} <= found.keys()
    assert not {"numpy", "torch", "faiss-cpu", "smplx", "pyyaml"} & found.keys()
    assert "timm" not in needed_packages(required, {*STOCK, "timm"})
    assert "faiss-cpu" in needed_packages(required, STOCK, wanted=["faiss"])
    assert "faiss-cpu" not in needed_packages(required, {*STOCK, "faiss-gpu"}, wanted=["faiss"])


def test_parts_of_torch_are_never_bundled() -> None:
    with pytest.raises(ClearError, match="The machine has no torchvision"):
        needed_packages(["torchvision"], STOCK - {"torchvision"})
    with pytest.raises(ClearError, match="--with something"):
        needed_packages([], STOCK, wanted=["something"])


def test_a_machines_list_is_read(tmp_path: Path) -> None:
    listing = tmp_path / "machine.txt"
    listing.write_text("# a comment\ntorch==2.11.0+cu130\nOpen_CLIP-torch==3.3.0\n-e /somewhere\nPyYAML==6.0\n")
    assert read_machine(listing) >= {"torch", "open-clip-torch", "pyyaml"}
    listing.write_text("numpy==2.0\n")
    with pytest.raises(ClearError, match="no torch in it"):
        read_machine(listing)


def test_older_wheels_fit_too() -> None:
    assert compatible_platforms("manylinux_2_28_x86_64")[:2] == ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"]
    assert {"manylinux2014_x86_64", "manylinux_2_17_x86_64"} <= set(compatible_platforms("manylinux_2_28_x86_64"))
    assert "manylinux_2_31_aarch64" not in compatible_platforms("manylinux_2_28_aarch64")
    with pytest.raises(ClearError, match="manylinux_2_28_x86_64"):
        compatible_platforms("linux_x86_64")
