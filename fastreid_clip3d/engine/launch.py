"""From a command line to running processes: checks of the machine, then one process or several."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.engine.job import Job
from fastreid_clip3d.engine.machine import check_processes
from fastreid_clip3d.engine.processes import (
    exit_after_the_others,
    run_local_processes,
    run_under_torchrun,
    started_by_torchrun,
)
from fastreid_clip3d.engine.run import run
from fastreid_clip3d.errors import ClearError


def run_job(job: Job, main: Callable[[Job], Any] = run) -> Any:
    """Runs `main(job)` in every process of the job.

    One process by default, ``--num-gpus`` of them, or those that torchrun has started. NCCL where ``MODEL.DEVICE`` is
    cuda, gloo where it is cpu.

    Raises:
        ClearError: settings that cannot work, before any process starts; later, the first error of any process.
    """
    with_torchrun = started_by_torchrun()
    if job.num_gpus < 1 or job.num_machines < 1:
        raise ClearError("--num-gpus and --num-machines are at least 1.")
    if with_torchrun and job.num_gpus > 1:
        raise ClearError("torchrun starts the processes (--nproc-per-node); leave --num-gpus out.")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if with_torchrun else job.num_gpus
    everywhere = int(os.environ["WORLD_SIZE"]) if with_torchrun else here * job.num_machines
    if everywhere == 1 and not with_torchrun:
        return main(job)
    try:
        cfg = load_config(job.config_file, job.opts)
        check_processes(cfg, here, everywhere, training=not job.eval_only)
    except ClearError:
        if int(os.environ.get("LOCAL_RANK", "0")) > 0:
            exit_after_the_others()
        raise
    use_cuda = cfg.MODEL.DEVICE.startswith("cuda")
    if with_torchrun:
        return run_under_torchrun(main, job, use_cuda)
    return run_local_processes(main, job, use_cuda)
