"""A training of two epochs on a device follows the CPU's, in every precision; kills, checkpoints and other settings."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fastreid_clip3d import cli
from fastreid_clip3d.inference import load_model
from tests.conftest import PYTHON_PATH
from tests.cuda.precision import relative_difference
from tests.engine.tiny_run import CONFIG, options

pytestmark = pytest.mark.usefixtures("datasets_folder")

EPOCHS = 2
HALF = {"SOLVER__AMP__ENABLED": "True"}
SETTINGS = {
    "float32": ({}, 0.02),
    "float16": ({**HALF, "SOLVER__AMP__DTYPE": "float16"}, 0.1),
    "bfloat16": ({**HALF, "SOLVER__AMP__DTYPE": "bfloat16"}, 0.2),
}
"""Keys of a precision, and how far each loss may be from the CPU's in float32, as a share of it."""


def train(data: Path, output: Path, device: str, resume: bool = False, **changed: str) -> list[dict[str, float]]:
    """Trains in this process; what was logged of each step."""
    keys = {"MODEL__DEVICE": device, "SOLVER__MAX_EPOCH": str(EPOCHS), **changed}
    cli.run_verb(["train", "--config-file", CONFIG, *["--resume"] * resume, *options(data, output, **keys)])
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [line for line in lines if "total_loss" in line]


@pytest.fixture(scope="session")
def on_cpu(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(data))
        patch.setattr("fastreid.data.build._root", str(data))
        return train(data, tmp_path_factory.mktemp("cpu"), "cpu")


def assert_follows(found: list[dict[str, float]], expected: list[dict[str, float]], tolerance: float) -> None:
    """Every loss of every step. Differences grow from step to step, so the tolerance is that of the last one."""
    assert [line["iteration"] for line in found] == [line["iteration"] for line in expected]
    assert len(found) >= 2 * EPOCHS
    for line, other in zip(found, expected):
        names = {name for name in other if name.startswith("loss_")}
        assert names >= {"loss_cls", "loss_ot", "loss_global", "loss_body_shape"}
        for name in names:
            assert line[name] == pytest.approx(other[name], rel=tolerance, abs=1e-3), (line["iteration"], name)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", SETTINGS)
def test_online_teacher(
    precision: str, data: Path, tmp_path: Path, on_cpu: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, tolerance = SETTINGS[precision]
    # Torch's first scale overflows in the first step, which is then skipped; the CPU skips none.
    small_scale = functools.partialmethod(torch.amp.GradScaler.__init__, init_scale=2.0**6)
    monkeypatch.setattr(torch.amp.GradScaler, "__init__", small_scale)
    assert_follows(train(data, tmp_path, "cuda", **keys), on_cpu, tolerance)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.cuda)])
def test_cached_teacher(
    precision: str, device: str, data: Path, tmp_path: Path, on_cpu: list[dict[str, float]]
) -> None:
    keys, tolerance = SETTINGS[precision]
    where = {"MODEL__DEVICE": device, "MODEL__TEACHER__CACHE_DIR": str(tmp_path / "cache")}
    words = options(data, tmp_path / "run", **where)
    cli.run_verb(["cache-teacher", "--config-file", CONFIG, "--workers", "0", *words])
    found = train(data, tmp_path / "run", device, MODEL__TEACHER__MODE="cached", **where, **keys)
    assert_follows(found, on_cpu, tolerance)


@pytest.mark.cuda
@pytest.mark.parametrize(
    "keys",
    [
        {"MODEL__COMPILE": "True"},
        {"MODEL__CHANNELS_LAST": "False"},
        {"MODEL__CHANNELS_LAST": "True", "CUDNN_BENCHMARK": "True"},
        {"MODEL__SYNTHETIC_STATISTICS": "separate"},
        {"MODEL__LOSSES__OT__NUM_ITERS": "50"},
    ],
    ids=lambda keys: " ".join(keys),
)
def test_other_settings_follow_the_cpu(keys: dict[str, str], data: Path, tmp_path: Path) -> None:
    on_a_cpu = {key: value for key, value in keys.items() if key not in ("MODEL__COMPILE", "CUDNN_BENCHMARK")}
    expected = train(data, tmp_path / "cpu", "cpu", **on_a_cpu)
    assert_follows(train(data, tmp_path / "cuda", "cuda", **keys), expected, 0.02)


@pytest.mark.cuda
def test_float16_keeps_its_loss_scale_in_the_checkpoint(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, "cuda", **SETTINGS["float16"][0])
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True, map_location="cpu")
    assert saved["grad_scaler"]["scale"] > 0


@pytest.mark.cuda
def test_a_cached_teacher_takes_no_device_memory(data: Path, tmp_path: Path) -> None:
    """Two runs that differ in the mode of the embedded teacher alone, whose weights are then not on the device."""
    where = {
        "MODEL__TEACHER__NAME": "embedded",
        "MODEL__TEACHER__CACHE_DIR": str(tmp_path / "cache"),
        "MODEL__DEVICE": "cuda",
    }
    cli.run_verb(["cache-teacher", "--config-file", CONFIG, "--workers", "0", *options(data, tmp_path, **where)])
    peaks = []
    for mode in ("cached", "online"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        # cuDNN's trials would take more memory than the teacher
        keys = {**where, "MODEL__TEACHER__MODE": mode, "CUDNN_BENCHMARK": "False"}
        del keys["MODEL__DEVICE"]
        train(data, tmp_path / mode, "cuda", **keys)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[0] < peaks[1]


@pytest.mark.parametrize("other", ["cpu", "cuda"])
def test_a_checkpoint_goes_from_device_to_device(other: str, device: str, data: Path, tmp_path: Path) -> None:
    """Trained on one, resumed and used on the other."""
    if other == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    train(data, tmp_path, device)
    images = torch.rand(4, 64, 32, 3).mul(255).to(torch.uint8).numpy()
    found = [load_model(tmp_path, where)(list(images)) for where in (device, other)]
    assert relative_difference(found[1], found[0]) < 1e-3
    lines = train(data, tmp_path, other, resume=True, SOLVER__MAX_EPOCH=str(EPOCHS + 1))
    assert [line["iteration"] for line in lines] == list(range(2 * (EPOCHS + 1)))


@pytest.mark.parametrize("precision", ["float32", pytest.param("float16", marks=pytest.mark.cuda)])
def test_kill_and_resume(precision: str, device: str, data: Path, tmp_path: Path) -> None:
    """Killed after its first epoch and resumed, a run ends where an uninterrupted one does."""
    epochs = 3
    keys = {"MODEL__DEVICE": device, "SOLVER__MAX_EPOCH": str(epochs), **SETTINGS[precision][0]}
    if device == "cpu":
        keys["SOLVER__AMP__ENABLED"] = "False"
    else:  # Adam divides by the size of a gradient, so that rounding decides the step of a small one
        keys |= {"SOLVER__OPT": "SGD", "CUDNN_BENCHMARK": "False"}
    command = [sys.executable, "-m", "fastreid_clip3d", "train", "--config-file", CONFIG]
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH, "FASTREID_DATASETS": str(data)}
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, *options(data, killed, **keys)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 600
    while not (killed / "last_checkpoint").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(data, killed, device, resume=True, **{key: keys[key] for key in keys if key != "MODEL__DEVICE"})
    train(data, tmp_path / "whole", device, **{key: keys[key] for key in keys if key != "MODEL__DEVICE"})
    ends = [
        torch.load(folder / "model_final.pth", weights_only=True, map_location="cpu")["model"]
        for folder in (killed, tmp_path / "whole")
    ]
    tolerance = 1e-6 if device == "cpu" else 2e-2  # CUDA's sums have no fixed order
    for name, value in ends[1].items():
        if value.is_floating_point():
            assert relative_difference(ends[0][name], value) <= tolerance, name
