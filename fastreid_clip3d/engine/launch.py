"""From a command line to running processes: checks of the machine, then one process or several."""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import Any, Callable

import torch
import torch.distributed as dist
from fastreid.config import CfgNode
from fastreid.engine import launch as fastreid_launch

from fastreid_clip3d.compat.launch import set_up_local_group
from fastreid_clip3d.errors import ClearError


def started_by_torchrun() -> bool:
    """Whether torchrun (or another launcher with its environment variables) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def run_processes(main: Callable[[argparse.Namespace], Any], arguments: argparse.Namespace) -> Any:
    """Runs `main(arguments)` in every process of the job.

    One process by default, ``--num-gpus`` of them by fast-reid's launch, or those that torchrun has started. NCCL where
    there is a CUDA device, gloo where there is none.
    """
    if not started_by_torchrun():
        return fastreid_launch(
            main,
            arguments.num_gpus,
            num_machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
            args=(arguments,),
        )
    use_cuda = torch.cuda.is_available()
    if use_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if use_cuda else "gloo")
    try:
        set_up_local_group(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        return main(arguments)
    finally:
        dist.destroy_process_group()


def check_machine(cfg: CfgNode) -> None:
    """Refuses a device that is not there and an output folder that cannot be written, before any work.

    Raises:
        ClearError: which key, and what to set it to.
    """
    device = cfg.MODEL.DEVICE
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ClearError(
            f"MODEL.DEVICE is {device!r}, but torch {torch.__version__} sees no CUDA device. Add `MODEL.DEVICE cpu` to the "
            "command, or install a driver and a CUDA build of torch."
        )
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ClearError(f"MODEL.DEVICE is {device!r}; it must be cpu, cuda or cuda:N.") from error
    try:
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        with tempfile.TemporaryFile(dir=cfg.OUTPUT_DIR):
            pass
    except OSError as error:
        raise ClearError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR} cannot be written ({error.strerror}). Set OUTPUT_DIR to a folder of yours."
        ) from error
