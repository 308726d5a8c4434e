"""Two processes on CPUs give the numbers of one and write one set of files; if one ends, the other one ends too."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as multiprocessing
from fastreid.utils.env import seed_all_rng

from fastreid_clip3d.compat.launch import process_group
from fastreid_clip3d.config_loading import inference_config, load_config
from fastreid_clip3d.engine import processes
from fastreid_clip3d.engine.machine import check_machine, check_processes
from fastreid_clip3d.engine.run import evaluate
from fastreid_clip3d.engine.trainer import CLIP3DTrainer
from fastreid_clip3d.errors import ClearError
from tests.conftest import REPOSITORY
from tests.engine.tiny_run import CONFIG, options

OURS = "('CrossEntropyLoss', 'OTLoss', 'GlobalDistillLoss', 'BodyShapeLoss')"
NO_CHANCE = {  # nothing random between the file and the student, and nothing that depends on the other images
    "INPUT__FLIP__ENABLED": "False",
    "INPUT__PADDING__ENABLED": "False",
    "INPUT__REA__ENABLED": "False",
    "MODEL__BACKBONE__NORM": "FrozenBN",
    "MODEL__HEADS__NORM": "GN",  # looks at one image at a time
    "MODEL__LOSSES__NAME": OURS,
    "SOLVER__OPT": "SGD",
    "SOLVER__BASE_LR": "0.001",
    "SOLVER__MAX_EPOCH": "2",
}
CASES = {
    "whole": NO_CHANCE,
    "OT of scale 0": {**NO_CHANCE, "MODEL__LOSSES__OT__SCALE": "0.", "MODEL__LOSSES__OT__SYNTHETIC_SCALE": "0."},
    "CAL before its epoch": {
        "MODEL__LOSSES__NAME": "('CrossEntropyLoss', 'TripletLoss', 'ClothesAdversarialLoss')",
        "SOLVER__MAX_EPOCH": "2",
    },
    "no OT": {"MODEL__LOSSES__NAME": "('CrossEntropyLoss', 'BodyShapeLoss')", "SOLVER__MAX_EPOCH": "2"},
}


@pytest.fixture(autouse=True)
def datasets_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(data))


def train(data: Path, output: Path, rank: int = 0, **changed: str) -> CLIP3DTrainer:
    """What ``engine.run`` does, without its files of log and settings."""
    cfg = load_config(CONFIG, options(data, output, **changed))
    cfg.freeze()
    output.mkdir(parents=True, exist_ok=True)
    seed_all_rng(cfg.SEED + rank)
    trainer = CLIP3DTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.weights_at_start = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.train()
    return trainer


def losses_of(output: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [line for line in lines if "total_loss" in line]


# -- numbers -----------------------------------------------------------------------------------------------------------


def one_rank(rank: int, data: Path, folder: Path) -> None:
    """One of two processes: trains all cases and leaves its weights."""
    os.environ["FASTREID_DATASETS"] = str(data)
    torch.set_num_threads(1)
    with process_group(False, rank, 2, init_method=f"file://{folder}/meeting", world_size=2, rank=rank):
        for name, changed in CASES.items():
            trainer = train(data, folder / name, rank, **changed)
            torch.save(trainer.model.module.state_dict(), folder / f"{name} {rank}.pth")


@pytest.fixture(scope="module")
def pair(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes made of every case."""
    folder = tmp_path_factory.mktemp("pair")
    multiprocessing.spawn(one_rank, (data, folder), nprocs=2)
    return folder


@pytest.mark.parametrize("name", ["whole", "OT of scale 0"])
def test_two_halves_of_a_batch_train_what_the_whole_batch_trains(
    name: str, data: Path, pair: Path, tmp_path: Path
) -> None:
    """Four steps of SGD; the sampler deals the batches of one process out to the ranks, so the images are the same."""
    alone = train(data, tmp_path, **CASES[name])
    expected = alone.model.state_dict()
    start = alone.weights_at_start
    for rank in range(2):
        found = torch.load(pair / f"{name} {rank}.pth", weights_only=True)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            change = (value - start[key]).float().norm()
            assert (found[key] - value).float().norm() <= 0.01 * change + 1e-6, f"rank {rank}, {key}"
    for part in ("backbone.layer1.0.conv1.weight", "heads.weight", "body_shape_loss.regressor.0.weight"):
        assert not torch.equal(expected[part], start[part])
    losses, expected_losses = losses_of(pair / name), losses_of(tmp_path)
    assert len(losses) == len(expected_losses) >= 4
    for line, expected_line in zip(losses, expected_losses):
        compared = {key for key in expected_line if key.startswith("loss_")}
        assert compared >= {"loss_cls", "loss_global", "loss_body_shape"}
        for key in compared:
            assert line[key] == pytest.approx(expected_line[key], rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize("name", ["whole", "no OT"])
def test_two_processes_evaluate_as_one_does(name: str, data: Path, pair: Path, tmp_path: Path) -> None:
    given = options(data, tmp_path, **{**CASES[name], "MODEL__WEIGHTS": str(pair / name / "model_final.pth")})
    alone = evaluate(inference_config(load_config(CONFIG, given)))
    lines = [json.loads(line) for line in (pair / name / "metrics.json").read_text().splitlines()]
    last = [line for line in lines if "mAP" in line][-1]
    for key in ("mAP", "Rank-1", "mINP", "CSVDataset/CC/mAP"):
        assert last[key] == pytest.approx(alone[key], abs=1e-3), key


@pytest.mark.parametrize("name", CASES)
def test_branches_that_training_does_not_use_hold_nobody_up(name: str, pair: Path) -> None:
    losses = losses_of(pair / name)
    assert len(losses) >= 4, "all steps of two epochs"
    first, second = (torch.load(pair / f"{name} {rank}.pth", weights_only=True) for rank in range(2))
    for key, value in first.items():
        assert torch.equal(value, second[key]), f"{key}: after an evaluation all ranks hold the same"


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"SOLVER__IMS_PER_BATCH": "15"}, "SOLVER.IMS_PER_BATCH 15 .* 2 processes"),
        ({"DATALOADER__SYNTHETIC_PER_BATCH": "3"}, "DATALOADER.SYNTHETIC_PER_BATCH 3 .* 2 processes"),
        ({"MODEL__BACKBONE__NORM": "syncBN"}, "MODEL.BACKBONE.NORM is syncBN.*CUDA"),
        ({"MODEL__HEADS__NORM": "syncBN"}, "MODEL.HEADS.NORM is syncBN.*CUDA"),
        ({"MODEL__DEVICE": "cuda"}, "sees no CUDA device"),
    ],
)
def test_what_two_processes_cannot_do_is_refused_before_training(
    changed: dict[str, str], words: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = load_config(CONFIG, options(data, tmp_path, **changed))
    with pytest.raises(ClearError, match=words):
        check_processes(cfg, 2, 2, training=True)


def test_devices_are_counted(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(load_config(CONFIG, options(data, tmp_path, MODEL__DEVICE="cuda")), 2, 4, training=True)
    with pytest.raises(ClearError, match="4 processes .* 2 CUDA devices"):
        check_processes(load_config(CONFIG, options(data, tmp_path, MODEL__DEVICE="cuda")), 4, 4, training=True)
    with pytest.raises(ClearError, match="cuda:0 is one device for 2 processes"):
        check_processes(load_config(CONFIG, options(data, tmp_path, MODEL__DEVICE="cuda:0")), 2, 2, training=True)


def test_mixed_precision_on_a_cpu_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    cfg = load_config(CONFIG, options(data, tmp_path, SOLVER__AMP__ENABLED="True"))
    with pytest.raises(ClearError, match="SOLVER.AMP.ENABLED"):
        check_machine(cfg)
    check_machine(cfg, training=False)


# -- commands ----------------------------------------------------------------------------------------------------------

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TOOL = ["tools/train_net.py", "--config-file", CONFIG]


def start(command: list[str], log: Path, **environment: str) -> subprocess.Popen:
    """Starts a command whose processes, children's children included, know the name of its log."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "LOG_OF_TEST": str(log), **environment
    }  # fmt: skip
    with open(log, "wb") as file:
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def processes_of(log: Path) -> dict[int, dict[str, str]]:
    """The living processes of a started command, with their environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            entries = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            environment = dict(entry.split("=", 1) for entry in entries if "=" in entry)
            if environment.get("LOG_OF_TEST") == str(log):
                found[int(folder.name)] = environment
        except OSError:
            pass
    return found


@pytest.fixture(autouse=True, scope="module")
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    for log in tmp_path_factory.getbasetemp().rglob("*.txt"):
        for pid in processes_of(log):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Any, process: subprocess.Popen | None, log: Path, seconds: float = 600) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert process is None or process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str, float]:
    """A long run of --num-gpus 2 whose rank 1 is killed after a checkpoint: its folder, exit code, words, seconds."""
    output = tmp_path_factory.mktemp("commands") / "run"
    log = output.parent / "killed.txt"
    command = [sys.executable, *TOOL, "--num-gpus", "2", *options(data, output, SOLVER__MAX_EPOCH="400")]
    process = start(command, log, FASTREID_DATASETS=str(data))
    wait_until((output / "last_checkpoint").is_file, process, log)
    spawned = sorted(pid for pid in processes_of(log) if "spawn_main" in command_of(pid))
    assert len(spawned) == 2
    os.kill(spawned[1], signal.SIGKILL)
    since = time.monotonic()
    code = process.wait(300)
    taken = time.monotonic() - since
    wait_until(lambda: not processes_of(log), None, log, 60)
    return output, code, log.read_text(), taken


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_killed_rank_ends_the_run_with_its_name_and_the_remedy(killed: tuple[Path, int, str, float]) -> None:
    _, code, words, taken = killed
    assert code == 2 and taken < 120
    (line,) = [line for line in words.splitlines() if line.startswith("error: ")]
    assert "Rank 1 of 2 was ended by SIGKILL" in line and "--resume" in line
    assert "Traceback" not in words


@pytest.fixture(scope="module")
def resumed(data: Path, killed: tuple[Path, int, str, float]) -> tuple[Path, str]:
    """The killed run, finished by torchrun with --resume."""
    output, *_ = killed
    last = (output / "last_checkpoint").read_text()
    done = torch.load(output / last, weights_only=True)["epoch"] + 1
    log = output.parent / "resumed.txt"
    command = [*TORCHRUN, *TOOL, "--resume", *options(data, output, SOLVER__MAX_EPOCH=str(done + 1))]
    process = start(command, log, FASTREID_DATASETS=str(data))
    assert process.wait(600) == 0, log.read_text()[-3000:]
    assert f"Starting training from epoch {done}" in log.read_text()
    return output, log.read_text()


def table_of(words: str) -> list[str]:
    return re.findall(r"^\| (?:general|CC|SC) .*$", words, re.MULTILINE)[-3:]


def test_torchrun_resumes_trains_and_evaluates_as_one_process_does(
    resumed: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    output, words = resumed
    saved = str(output / "model_final.pth")
    cfg = load_config(CONFIG, options(data, tmp_path, MODEL__WEIGHTS=saved))
    alone = evaluate(inference_config(cfg))
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    (last,) = [line for line in lines if "mAP" in line][-1:]
    for key in ("mAP", "Rank-1", "mINP", "CSVDataset/CC/mAP"):
        assert last[key] == pytest.approx(alone[key], abs=1e-3), key
    assert len(table_of(words)) == 3


def test_only_rank_0_writes(resumed: tuple[Path, str]) -> None:
    output, _ = resumed
    names = {path.name for path in output.iterdir()}
    assert {"config.yaml", "log.txt", "log.txt.rank1", "metrics.json", "last_checkpoint", "model_final.pth"} <= names
    assert [name for name in names if "rank1" in name] == ["log.txt.rank1"]
    assert not [name for name in names if name.endswith(".partial")]
    lines = losses_of(output)
    assert len({line["iteration"] for line in lines}) == len(lines), "no step is written twice"


# -- errors of a rank, without a training -----------------------------------------------------------------------------

SCRIPT = """
import argparse, os, signal, sys, time
import torch, torch.distributed as dist
from fastreid_clip3d.engine.processes import run_local_processes, run_under_torchrun, started_by_torchrun
from fastreid_clip3d.errors import ClearError, run_tool

def work(arguments):
    rank = dist.get_rank()
    if arguments.what == "both":
        raise ClearError("both ranks say this")
    if arguments.what == "one" and rank == 1:
        raise ClearError("rank 1 says this")
    while True:  # until the other one is gone
        dist.all_reduce(torch.zeros(3))
        open(os.path.join(arguments.folder, str(rank)), "w").close()
        time.sleep(0.01)

def main():
    arguments = argparse.Namespace(
        what=sys.argv[1], folder=sys.argv[2], num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto"
    )
    run = run_under_torchrun if started_by_torchrun() else run_local_processes
    run(work, arguments, False)

if __name__ == "__main__":
    run_tool(main)
"""


def start_script(tmp_path: Path, launcher: list[str], what: str) -> tuple[subprocess.Popen, Path]:
    script, log = tmp_path / "script.py", tmp_path / "log.txt"
    script.write_text(SCRIPT)
    return start([*launcher, str(script), what, str(tmp_path)], log), log


def errors_in(words: str) -> list[str]:
    return [line for line in words.splitlines() if line.startswith("error: ")]


def test_an_error_of_one_rank_is_printed_and_ends_the_other(tmp_path: Path) -> None:
    process, log = start_script(tmp_path, [sys.executable], "one")
    assert process.wait(600) == 2
    assert errors_in(log.read_text()) == ["error: rank 1 says this"] and "Traceback" not in log.read_text()


def test_under_torchrun_an_error_of_all_ranks_is_printed_once(tmp_path: Path) -> None:
    process, log = start_script(tmp_path, TORCHRUN, "both")
    assert process.wait(600) != 0
    words = log.read_text()
    assert errors_in(words) == ["error: both ranks say this"]
    assert "Traceback" not in words.partition("torch/distributed/elastic")[0], "but for torchrun's own"


def test_torchrun_ends_when_a_rank_is_killed(tmp_path: Path) -> None:
    process, log = start_script(tmp_path, TORCHRUN, "work")
    wait_until(lambda: (tmp_path / "0").is_file() and (tmp_path / "1").is_file(), process, log)
    (victim,) = [pid for pid, environment in processes_of(log).items() if environment.get("RANK") == "1"]
    os.kill(victim, signal.SIGKILL)
    assert process.wait(300) != 0
    wait_until(lambda: not processes_of(log), None, log, 60)
    (message,) = errors_in(log.read_text())
    # Which of the two comes first depends on the moment of the kill.
    assert "rank 0 lost its connection to another process" in message or "one of its processes ended" in message
    assert "--resume" in message
    assert re.search(r"rank +: 1 .*\n *exitcode +: -9", log.read_text()), "torchrun's report names the rank"


SECONDS_TO_BE_GONE = 30
"""Ten are enough on a free machine; the tests share theirs."""


def everybody(process: subprocess.Popen, number: int) -> None:
    os.killpg(process.pid, number)


def the_command_alone(process: subprocess.Popen, number: int) -> None:
    process.send_signal(number)


@pytest.mark.parametrize(
    ("number", "reached", "code"),
    [
        (signal.SIGINT, the_command_alone, 130),
        (signal.SIGINT, everybody, 130),  # Ctrl-C in a terminal
        (signal.SIGTERM, the_command_alone, 128 + signal.SIGTERM),  # systemd, slurm, docker stop
        (signal.SIGKILL, the_command_alone, -signal.SIGKILL),
    ],
)
def test_nobody_is_left_after_a_signal(number: int, reached: Any, code: int, tmp_path: Path) -> None:
    process, log = start_script(tmp_path, [sys.executable], "work")
    wait_until(lambda: (tmp_path / "0").is_file() and (tmp_path / "1").is_file(), process, log)
    reached(process, number)
    wait_until(lambda: process.poll() is not None and not processes_of(log), None, log, SECONDS_TO_BE_GONE)
    assert process.returncode == code, log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nobody_is_left_after_a_signal_while_ranks_start(number: int, tmp_path: Path) -> None:
    process, log = start_script(tmp_path, [sys.executable], "work")
    wait_until(lambda: any("spawn_main" in command_of(pid) for pid in processes_of(log)), process, log)
    the_command_alone(process, number)
    # A rank that still imports torch, 4 s of CPU and several times that on a busy machine, notices only afterwards.
    wait_until(lambda: process.poll() is not None and not processes_of(log), None, log, 2 * SECONDS_TO_BE_GONE)
    assert process.returncode != 0


class Ended:
    """What is left of a process."""

    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float | None = None) -> None: ...


@pytest.mark.parametrize(
    ("exit_codes", "noticed", "words"),
    [
        ((-9, -15), 0, "Rank 0 of 2 was ended by SIGKILL"),
        ((75, -9), 1, "Rank 1 of 2 was ended by SIGKILL"),
        ((75, -11), 0, "Rank 1 of 2 was ended by SIGSEGV"),
        ((3, 75), 1, "Rank 0 of 2 was ended by exit code 3"),
        ((75, 0), 0, "A process of this run ended early"),
    ],
)
def test_the_rank_that_ended_first_is_named(
    exit_codes: tuple[int, int], noticed: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Context:
        processes = [Ended(code) for code in exit_codes]

        def join(self) -> bool:
            raise multiprocessing.ProcessExitedException("ended", noticed, 1, exit_codes[noticed])

    monkeypatch.setattr(processes, "start_processes", lambda *given, **named: Context())
    arguments = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    with pytest.raises(ClearError, match=words + ".*--resume"):
        processes.run_local_processes(print, arguments, use_cuda=False)


def test_a_bug_of_a_rank_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        processes = [Ended(75), Ended(1)]

        def join(self) -> bool:
            raise multiprocessing.ProcessRaisedException("KeyError: a bug", 1, 1)

    monkeypatch.setattr(processes, "start_processes", lambda *given, **named: Context())
    arguments = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    with pytest.raises(multiprocessing.ProcessRaisedException, match="a bug"):
        processes.run_local_processes(print, arguments, use_cuda=False)


def test_a_second_run_on_the_machine_takes_another_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert processes._free_url(f"tcp://127.0.0.1:{port}") != f"tcp://127.0.0.1:{port}"
    assert processes._free_url(f"tcp://127.0.0.1:{port}") == f"tcp://127.0.0.1:{port}"
    assert processes._free_url("file:///meeting") == "file:///meeting"
