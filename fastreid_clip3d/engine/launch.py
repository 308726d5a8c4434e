"""From a command line to running processes: checks of the machine, then one process or several."""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import Any, Callable

import torch
from fastreid.config import CfgNode

from fastreid_clip3d.config import load_config
from fastreid_clip3d.data.build import MIXED_SAMPLER
from fastreid_clip3d.engine.processes import (
    leave_the_word_to_another,
    run_local_processes,
    run_under_torchrun,
    started_by_torchrun,
)
from fastreid_clip3d.errors import ClearError


def run_processes(main: Callable[[argparse.Namespace], Any], arguments: argparse.Namespace) -> Any:
    """Runs `main(arguments)` in every process of the job.

    One process by default, ``--num-gpus`` of them, or those that torchrun has started. NCCL where ``MODEL.DEVICE`` is
    cuda, gloo where it is cpu.

    Raises:
        ClearError: settings that cannot work, before any process starts; later, the first error of any process.
    """
    with_torchrun = started_by_torchrun()
    if arguments.num_gpus < 1 or arguments.num_machines < 1:
        raise ClearError("--num-gpus and --num-machines are at least 1.")
    if with_torchrun and arguments.num_gpus > 1:
        raise ClearError("torchrun starts the processes (--nproc-per-node); leave --num-gpus out.")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if with_torchrun else arguments.num_gpus
    everywhere = int(os.environ["WORLD_SIZE"]) if with_torchrun else here * arguments.num_machines
    if everywhere == 1 and not with_torchrun:
        return main(arguments)
    try:
        cfg = load_config(arguments.config_file, arguments.opts)
        check_processes(cfg, here, everywhere, training=not arguments.eval_only)
    except ClearError:
        if int(os.environ.get("LOCAL_RANK", "0")) > 0:
            leave_the_word_to_another()
        raise
    use_cuda = cfg.MODEL.DEVICE.startswith("cuda")
    if with_torchrun:
        return run_under_torchrun(main, arguments, use_cuda)
    return run_local_processes(main, arguments, use_cuda)


def check_processes(cfg: CfgNode, here: int, everywhere: int, training: bool) -> None:
    """Refuses what several processes cannot do: devices that are missing, batches that cannot be dealt out evenly.

    Args:
        here, everywhere: processes of this machine and of all machines.

    Raises:
        ClearError: which key, and what to set it to.
    """
    device = cfg.MODEL.DEVICE
    if device.startswith("cuda"):
        check_device(device)
        if ":" in device and everywhere > 1:
            raise ClearError(f"MODEL.DEVICE {device} is one device for {everywhere} processes; set MODEL.DEVICE cuda.")
        if here > torch.cuda.device_count():
            raise ClearError(
                f"{here} processes (--num-gpus, or torchrun's --nproc-per-node), but this machine has "
                f"{torch.cuda.device_count()} CUDA devices."
            )
    if not training:
        return
    counts = [("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH)]
    if cfg.DATALOADER.SAMPLER_TRAIN == MIXED_SAMPLER:
        counts.append(("DATALOADER.SYNTHETIC_PER_BATCH", cfg.DATALOADER.SYNTHETIC_PER_BATCH))
    for key, count in counts:
        if count % everywhere:
            raise ClearError(
                f"{key} {count} cannot be dealt out evenly to {everywhere} processes: it counts the images of all of "
                f"them. Set it to a multiple of {everywhere}."
            )
    norms = {"MODEL.BACKBONE.NORM": cfg.MODEL.BACKBONE.NORM, "MODEL.HEADS.NORM": cfg.MODEL.HEADS.NORM}
    for key, norm in norms.items():
        if norm == "syncBN" and everywhere > 1 and not device.startswith("cuda"):
            raise ClearError(
                f"{key} is syncBN, which torch computes on CUDA devices only; with several processes on CPUs set it to "
                "BN: each process then has its own statistics."
            )


def check_device(device: str) -> None:
    """Refuses ``MODEL.DEVICE`` cuda where torch has none."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ClearError(
            f"MODEL.DEVICE is {device!r}, but torch {torch.__version__} sees no CUDA device. Add `MODEL.DEVICE cpu` to the "
            "command, or install a driver and a CUDA build of torch."
        )


def check_machine(cfg: CfgNode, training: bool = True) -> None:
    """Refuses a device that is not there and an output folder that cannot be written, before any work.

    When `training`, also mixed precision on a CPU, which fast-reid's trainer has for CUDA only.

    Raises:
        ClearError: which key, and what to set it to.
    """
    device = cfg.MODEL.DEVICE
    check_device(device)
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ClearError(f"MODEL.DEVICE is {device!r}; it must be cpu, cuda or cuda:N.") from error
    if training and cfg.SOLVER.AMP.ENABLED and not device.startswith("cuda"):
        raise ClearError(
            f"SOLVER.AMP.ENABLED is True and MODEL.DEVICE {device}: mixed precision needs CUDA. Add `SOLVER.AMP.ENABLED "
            "False` to the command."
        )
    try:
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        with tempfile.TemporaryFile(dir=cfg.OUTPUT_DIR):
            pass
    except OSError as error:
        raise ClearError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR} cannot be written ({error.strerror}). Set OUTPUT_DIR to a folder of yours."
        ) from error
