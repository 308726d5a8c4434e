"""Process groups: NCCL on CUDA devices (as many processes as there are devices, two at most), gloo on CPUs; SyncBN."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from fastreid_clip3d.compat.launch import process_group
from tests.cuda.precision import relative_difference

IMAGES = 8


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).double()


def images() -> torch.Tensor:
    return torch.randn(IMAGES, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients_of_one_process() -> list[torch.Tensor]:
    model = network()
    model(images()).square().mean().backward()
    return [weight.grad for weight in model.parameters()]


def work(rank: int, world_size: int, folder: str, device: str) -> None:
    """One process: its share of the images, gradients averaged over the group, batch norms over all images."""
    on_cuda = device == "cuda"
    with process_group(
        on_cuda, rank, world_size, init_method=f"file://{folder}/meeting", world_size=world_size, rank=rank
    ):
        assert dist.get_backend() == ("nccl" if on_cuda else "gloo")
        where = torch.device("cuda", rank) if on_cuda else torch.device("cpu")
        model = network().to(where)
        if on_cuda:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        model = nn.parallel.DistributedDataParallel(model, device_ids=[rank] if on_cuda else None)
        share = images().chunk(world_size)[rank].to(where)
        model(share).square().mean().backward()
        if rank == 0:
            torch.save([weight.grad.cpu() for weight in model.parameters()], Path(folder, "gradients.pth"))


@pytest.mark.parametrize(
    ("device", "world_size"),
    [
        ("cpu", 1),
        pytest.param("cuda", 1, marks=pytest.mark.cuda),
        pytest.param("cuda", 2, marks=pytest.mark.cuda),
    ],
)
def test_gradients_are_those_of_one_process(device: str, world_size: int, tmp_path: Path) -> None:
    if device == "cuda" and torch.cuda.device_count() < world_size:
        pytest.skip(f"{world_size} CUDA devices are needed")
    torch.multiprocessing.spawn(work, (world_size, str(tmp_path), device), nprocs=world_size)
    found = torch.load(tmp_path / "gradients.pth", weights_only=True)
    for mine, expected in zip(found, gradients_of_one_process(), strict=True):
        assert relative_difference(mine, expected) < 1e-6


@pytest.mark.cuda
def test_a_training_under_nccl(datasets_folder: Path, tmp_path: Path) -> None:
    """torchrun with as many processes as there are devices, two at most, with SyncBN."""
    import os
    import subprocess
    import sys

    from tests.conftest import PYTHON_PATH
    from tests.engine.tiny_run import CONFIG, options

    processes = min(2, torch.cuda.device_count())
    keys = {"MODEL__DEVICE": "cuda", "MODEL__BACKBONE__NORM": "syncBN", "MODEL__HEADS__NORM": "syncBN"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "fastreid_clip3d", "train", "--config-file", CONFIG, *options(datasets_folder, tmp_path, **keys)]
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH, "FASTREID_DATASETS": str(datasets_folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "model_final.pth").is_file()
