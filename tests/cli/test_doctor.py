"""`clip3d doctor`: what it finds, what it says is missing, and that it runs where fast-reid does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastreid_clip3d import cli
from fastreid_clip3d.common import machine_report as report
from fastreid_clip3d.errors import OPTIONAL
from tests.conftest import REPOSITORY


def test_it_reports_versions_folders_and_providers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "SynthCC").mkdir()
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    assert cli.run_verb(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["torch"]["version"] == torch.__version__ and found["libraries"]["fastreid"]["version"] == "1.4.0"
    assert Path(found["libraries"]["numpy"]["place"]).name == "numpy"
    assert found["datasets"]["entries"] == ["SynthCC"] and found["datasets"]["variable_set"]
    assert "CPUExecutionProvider" in found["onnxruntime_providers"]
    assert cli.run_verb(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"torch {torch.__version__}" in text and "1 entries: SynthCC" in text


def test_devices_are_listed_with_what_they_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [
        SimpleNamespace(name="Old Card", total_memory=8 * 2**30, major=7, minor=5),
        SimpleNamespace(name="New Card", total_memory=80 * 2**30, major=9, minor=0),
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: cards[number])
    text = report.report_text(report.machine_report())
    assert "cuda:0  Old Card, 8.0 GiB, compute capability 7.5, bfloat16 no" in text
    assert "cuda:1  New Card, 80.0 GiB, compute capability 9.0, bfloat16 yes" in text
    assert "a CUDA device" not in text


def test_whatever_a_broken_installation_raises_is_reported() -> None:
    def register() -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    first = report.with_registration(report.machine_report(), register)["missing"][0]
    assert first["costs"] == report.NOTHING_WORKS
    assert first["remedy"] == "RuntimeError: operator torchvision::nms does not exist"


def test_a_folder_of_a_librarys_name_is_no_library_and_a_file_no_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "surely_no_library").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert report._library("surely_no_library") is None
    (tmp_path / "datasets").touch()
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "datasets"))
    assert not report.machine_report()["datasets"]["exists"]


def test_what_is_missing_is_named_with_its_cost_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = report._library
    gone = {"faiss", "pytorch3d", "timm"}
    monkeypatch.setattr(report, "_library", lambda name: None if name in gone else known(name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(report, "_driver", lambda: "12.4")
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "gone"))
    missing = {one["what"]: one for one in report.machine_report()["missing"]}
    assert list(missing) == ["timm", "a CUDA device", f"the folder {tmp_path / 'gone'}", "faiss", "pytorch3d"]
    assert missing["timm"]["costs"] == report.NOTHING_WORKS
    assert "13.0" in missing["a CUDA device"]["remedy"] and "12.4" in missing["a CUDA device"]["remedy"]
    assert "search" in missing["faiss"]["costs"] and "pip install faiss-cpu" in missing["faiss"]["remedy"]


def test_every_optional_library_has_a_cost() -> None:
    assert report.COSTS.keys() == OPTIONAL.keys()


def test_it_runs_where_fastreid_cannot_be_found(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "FASTREID_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "fastreid_clip3d", "doctor", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    first = json.loads(done.stdout)["missing"][0]
    assert first["what"] == "a fast-reid that can be used" and "FASTREID_HOME" in first["remedy"]
