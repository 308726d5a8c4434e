"""What this machine has of what the package uses: versions, devices, folders, and what each missing thing costs."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from fastreid_clip3d.common.dataset_root import VARIABLE, dataset_root
from fastreid_clip3d.errors import OPTIONAL, ClearError

REQUIRED = ("torchvision", "fastreid", "open_clip", "timm", "numpy", "scipy", "sklearn", "cv2", "PIL")
"""Libraries without which nothing trains, by the name of their import."""

NOTHING_WORKS = "nothing works without it"

COSTS = {
    "faiss": "no search, no re-ranking, no query expansion",
    "gdown": "fast-reid cannot download ImageNet weights; give MODEL.BACKBONE.PRETRAIN_PATH",
    "matplotlib": "no diagrams and no pictures of bodies or transport plans",
    "onnx": "no export to .onnx",
    "onnxruntime": "an exported .onnx file cannot be checked or used",
    "pyarrow": "no .parquet files",
    "pytorch3d": "no rendering of bodies and people; training reads sets that another machine rendered",
    "trimesh": "no mesh files in `clip3d describe`",
}
"""What does not work where a library of ``errors.OPTIONAL`` is missing."""

_DISTRIBUTIONS = {
    "open_clip": "open_clip_torch",
    "sklearn": "scikit-learn",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "pytorch3d": "easypytorch3d",
}


def machine_report() -> dict[str, Any]:
    """What ``clip3d doctor`` shows, ready for JSON.

    Returns:
        ``package`` (version), ``python``, ``system``, ``cores``; ``torch``: {version, cuda (the one it was built for),
        cudnn, cuda_available, driver (the newest CUDA version that the driver knows, "" without a driver), devices: a
        list of {name, memory_gib, capability, bfloat16}}; ``libraries``: {import name: {version, place}}, None for a
        missing one; ``onnxruntime_providers``; ``datasets``: {folder, variable_set, exists, entries};
        ``working_folder``: {folder, writable}; ``missing``: a list of {what, costs, remedy}, the worst first.
    """
    libraries = {name: _library(name) for name in (*REQUIRED, *OPTIONAL)}
    datasets = _datasets()
    working_folder = {"folder": os.getcwd(), "writable": os.access(os.getcwd(), os.W_OK)}
    torch_facts = _torch()
    return {
        "package": _version("fastreid_clip3d"),
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "torch": torch_facts,
        "libraries": libraries,
        "onnxruntime_providers": _onnx_providers() if libraries["onnxruntime"] else [],
        "datasets": datasets,
        "working_folder": working_folder,
        "missing": _missing(libraries, torch_facts, datasets, working_folder),
    }


def report_text(report: dict[str, Any]) -> str:
    """The report as lines to read and to paste into an issue."""
    lines = [
        f"fastreid_clip3d {report['package']}, Python {report['python']}",
        f"{report['system']}, {report['cores']} cores",
    ]
    torch_facts = report["torch"]
    built = f"built for CUDA {torch_facts['cuda']}, cuDNN {torch_facts['cudnn']}" if torch_facts["cuda"] else "CPU only"
    driver = f"the driver knows CUDA {torch_facts['driver']}" if torch_facts["driver"] else "no CUDA driver"
    lines.append(f"torch {torch_facts['version']}: {built}; {driver}")
    for number, device in enumerate(torch_facts["devices"]):
        lines.append(
            f"  cuda:{number}  {device['name']}, {device['memory_gib']:.1f} GiB, compute capability "
            f"{device['capability']}, bfloat16 {'yes' if device['bfloat16'] else 'no'}"
        )
    lines.append("libraries:")
    for name, found in report["libraries"].items():
        lines.append(f"  {name:<12} " + (f"{found['version']:<16} {found['place']}" if found else "missing"))
    if report["onnxruntime_providers"]:
        lines.append(f"onnxruntime runs on: {', '.join(report['onnxruntime_providers'])}")
    datasets = report["datasets"]
    said = "" if datasets["variable_set"] else f" ({VARIABLE} is not set)"
    there = (
        f"{len(datasets['entries'])} entries: {', '.join(datasets['entries'][:12])}"
        if datasets["exists"]
        else "missing"
    )
    lines.append(f"datasets: {datasets['folder']}{said}, {there}")
    folder = report["working_folder"]
    lines.append(f"working folder: {folder['folder']}, {'writable' if folder['writable'] else 'NOT writable'}")
    lines += ["", "missing:" if report["missing"] else "nothing is missing"]
    lines += [f"  {one['what']}: {one['costs']}. {one['remedy']}" for one in report["missing"]]
    return "\n".join(lines)


def _library(name: str) -> dict[str, str] | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None and name not in sys.modules:
        return None
    origin = spec.origin if spec and spec.origin else getattr(sys.modules.get(name), "__file__", "")
    if not origin:  # a plain folder of that name in the working folder is no library
        return None
    return {"version": _version(_DISTRIBUTIONS.get(name, name)), "place": str(Path(origin).parent)}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _torch() -> dict[str, Any]:
    available = torch.cuda.is_available()
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda or "",
        "cudnn": torch.backends.cudnn.version() if torch.version.cuda else None,
        "cuda_available": available,
        "driver": _driver(),
        "devices": [_device(number) for number in range(torch.cuda.device_count())] if available else [],
    }


def _device(number: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(number)
    return {
        "name": found.name,
        "memory_gib": found.total_memory / 2**30,
        "capability": f"{found.major}.{found.minor}",
        "bfloat16": found.major >= 8,
    }


def _driver() -> str:
    """The newest CUDA version that the installed driver knows, "" without one."""
    version = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)):
            return ""
    except (AttributeError, OSError):
        return ""
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _onnx_providers() -> list[str]:
    try:
        import onnxruntime

        return list(onnxruntime.get_available_providers())
    except Exception as error:  # whatever a broken installation raises
        return [f"cannot be imported: {error}"]


def _datasets() -> dict[str, Any]:
    folder = Path(dataset_root())
    try:
        entries = sorted(os.listdir(folder))
        readable = True
    except OSError:
        entries, readable = [], False
    return {
        "folder": str(folder.absolute()),
        "variable_set": VARIABLE in os.environ,
        "exists": readable,
        "entries": entries,
    }


def _missing(
    libraries: dict[str, Any], torch_facts: dict[str, Any], datasets: dict[str, Any], working_folder: dict[str, Any]
) -> list[dict[str, str]]:
    found = [_entry(name, NOTHING_WORKS, _install(name)) for name in REQUIRED if libraries[name] is None]
    if not torch_facts["cuda_available"]:
        costs = "MODEL.DEVICE must be cpu, where a step of the paper's size takes many seconds"
        found.append(_entry("a CUDA device", costs, _way_to_cuda(torch_facts)))
    if not datasets["exists"]:
        remedy = f"Set {VARIABLE} to the folder of the datasets."
        found.append(_entry(f"the folder {datasets['folder']}", "no dataset is found but by an absolute path", remedy))
    if not working_folder["writable"]:
        remedy = "Work in another folder, or set OUTPUT_DIR to one."
        found.append(_entry("write access", "logs/ cannot be written here", remedy))
    found += [_entry(name, COSTS[name], _install(name)) for name in OPTIONAL if libraries[name] is None]
    return found


def _entry(what: str, costs: str, remedy: str) -> dict[str, str]:
    return {"what": what, "costs": costs, "remedy": remedy}


def _install(name: str) -> str:
    if name == "fastreid":
        return "Run `pip install --no-deps fastreid==1.4.0`."
    return f"Run `pip install {OPTIONAL.get(name) or _DISTRIBUTIONS.get(name, name)}`."


def _way_to_cuda(torch_facts: dict[str, Any]) -> str:
    if not torch_facts["cuda"]:
        return "Install a CUDA build of torch."
    if not torch_facts["driver"]:
        return f"Install a driver for CUDA {torch_facts['cuda']} or newer."
    return (
        f"torch was built for CUDA {torch_facts['cuda']}, the driver knows {torch_facts['driver']}: update the driver "
        "where its number is lower, else look at CUDA_VISIBLE_DEVICES."
    )


def with_registration(report: dict[str, Any], register: Any) -> dict[str, Any]:
    """The report after a try to register with fast-reid; where that fails, its reason is the first missing thing."""
    try:
        register()
    except Exception as error:  # whatever a broken installation raises
        said = " ".join(str(error).split())
        if not isinstance(error, ImportError | ClearError):
            said = f"{type(error).__name__}: {said}"
        report["missing"].insert(0, _entry("a fast-reid that can be used", NOTHING_WORKS, said))
    return report
