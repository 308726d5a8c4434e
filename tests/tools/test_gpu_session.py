"""The session on a GPU machine: its commands parse, its time limit holds, and its output is left in one folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docs.in_process import parse_only
from tools import gpu_session
from tools.gpu_session import PARTS, Part, run_parts

TOOLS = [part for part in PARTS if "pytest" not in part.words]


@pytest.mark.parametrize("part", TOOLS, ids=lambda part: part.name)
def test_every_part_is_a_command_that_its_parser_understands(part: Part, tmp_path: Path) -> None:
    words = [word.format(output=tmp_path, device="cuda", data=tmp_path) for word in part.words]
    words = ["clip3d", *words[2:]] if words[:2] == ["-m", "fastreid_clip3d"] else words
    parse_only(words, REPOSITORY)


def test_the_tests_are_those_that_make_runs() -> None:
    (part,) = (part for part in PARTS if "pytest" in part.words)
    assert part.words[:4] == ("-m", "pytest", "-m", "cuda") and (REPOSITORY / part.words[-1]).is_dir()


def test_parts_run_in_order_within_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    endless = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).wait()"
    )
    parts = [
        Part("said", ("-c", "import sys; print('on {device}'); print('to {output}', file=sys.stderr)")),
        Part("wrong", ("-c", "import sys; sys.exit(3)")),
        Part("endless", ("-c", endless), most=5),
        Part("study", ("-c", "print('no')"), dataset="SynthCC-tiny"),
        Part("render", ("-c", "print('no')"), library="not_a_library"),
    ]
    start = time.monotonic()
    reports = run_parts(parts, tmp_path / "out", 60, "cpu")
    assert time.monotonic() - start < 50
    assert [str(report["outcome"]).partition(":")[0] for report in reports] == [
        *("done", "failed", "stopped", "left out", "left out")
    ]
    assert reports[-1]["outcome"] == "left out: not_a_library is not installed"
    assert [report["exit_code"] for report in reports] == [0, 3, None, None, None]
    assert (tmp_path / "out" / "said.txt").read_text() == f"on cpu\nto {tmp_path / 'out'}\n"
    assert json.loads((tmp_path / "out" / "session.json").read_text()) == reports
    assert not Path(tmp_path / "out" / "study.txt").exists()
    late = run_parts(parts[:1], tmp_path / "late", 2, "cpu")
    assert late[0]["outcome"] == "left out: no time"


@pytest.mark.parametrize(("minutes", "code"), [("0.01", 1), ("2", 0)])
def test_a_part_without_time_makes_the_session_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: str, code: int
) -> None:
    monkeypatch.setattr(gpu_session, "PARTS", (Part("quick", ("-c", "pass")),))
    monkeypatch.setattr(sys, "argv", ["", "--output", str(tmp_path), "--device", "cpu", "--minutes", minutes])
    assert gpu_session.main() == code


def test_the_study_reads_the_data_that_lets_it_run() -> None:
    (study,) = (part for part in PARTS if part.dataset)
    assert study.words[study.words.index("--data-folder") + 1] == "{data}"


def test_a_machine_without_a_device_and_an_unknown_part_are_named(tmp_path: Path) -> None:
    tool = [sys.executable, str(REPOSITORY / "tools" / "gpu_session.py"), "--output", str(tmp_path / "out")]
    for more, words in (
        (["--only", "gone"], "--only gone: choose from doctor, tests"),
        (["--device", "cuda:77"], "cuda:77"),
    ):
        done = subprocess.run([*tool, *more], capture_output=True, text=True)
        assert done.returncode == 2 and words in done.stderr
    assert not (tmp_path / "out").exists()
