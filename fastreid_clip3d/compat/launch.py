"""Process groups that work on CPUs as well (gloo there, NCCL on CUDA devices), and that wait long enough."""

from __future__ import annotations

import datetime
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from fastreid_clip3d.compat.replacement import Reached
from fastreid_clip3d.errors import ClearError

PATIENCE = datetime.timedelta(hours=2)
"""How long a process waits for the others. Rank 0 alone scores a test set, and the others wait for it in the next
step: torch's own 10 minutes (NCCL) or 30 minutes (gloo) would end the run. When a process dies, the launcher ends the
others at once, whatever this time is."""


def set_up_local_group(processes_per_machine: int) -> None:
    """Makes the process group of this machine, which ``comm.get_local_rank`` reads. All processes call it."""
    from fastreid.utils import comm

    world_size, rank = dist.get_world_size(), dist.get_rank()
    for first in range(0, world_size, processes_per_machine):
        ranks = list(range(first, min(first + processes_per_machine, world_size)))
        group = dist.new_group(ranks, timeout=PATIENCE)
        if rank in ranks:
            comm._LOCAL_PROCESS_GROUP = group


@contextmanager
def process_group(use_cuda: bool, local_rank: int, processes_per_machine: int, **rendezvous: Any) -> Iterator[None]:
    """The process group of a run, and of this machine: NCCL on CUDA devices, gloo on CPUs.

    `rendezvous`: ``init_method``, ``world_size`` and ``rank`` of ``init_process_group``; none where torchrun has set
    the environment. After an error the group stays as it is: its other processes may be gone, and destroying the group
    would wait for them.
    """
    if use_cuda:
        torch.cuda.set_device(local_rank)
    dist.init_process_group(backend="nccl" if use_cuda else "gloo", timeout=PATIENCE, **rendezvous)
    set_up_local_group(processes_per_machine)
    yield
    dist.destroy_process_group()


def distributed_worker(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    num_gpus_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple[Any, ...],
) -> None:
    """One process of ``launch``; the signature is fast-reid's."""
    use_cuda = torch.cuda.is_available()
    if use_cuda and num_gpus_per_machine > torch.cuda.device_count():
        raise ClearError(
            f"--num-gpus {num_gpus_per_machine}, but this machine has {torch.cuda.device_count()} CUDA devices."
        )
    rank = machine_rank * num_gpus_per_machine + local_rank
    with process_group(
        use_cuda, local_rank, num_gpus_per_machine, init_method=dist_url, world_size=world_size, rank=rank
    ):
        main_func(*args)


@functools.lru_cache
def global_gloo_group() -> dist.ProcessGroup:
    """The group of all processes through which fast-reid gathers objects, on gloo."""
    if dist.get_backend() == "nccl":
        return dist.new_group(backend="gloo", timeout=PATIENCE)
    world = dist.group.WORLD
    assert world is not None, "the process group is made before fast-reid gathers"
    return world


def needs_cuda_or_sets_no_timeout(worker: Callable[..., None]) -> bool:
    """Whether a worker refuses a machine without CUDA, or makes its group with torch's own timeout."""
    no_cuda = mock.patch("torch.cuda.is_available", return_value=False)
    with no_cuda, mock.patch("torch.distributed.init_process_group", side_effect=Reached) as init:
        try:
            worker(0, print, 1, 1, 0, "", ())
        except (AssertionError, Reached):
            return not init.called or "timeout" not in init.call_args.kwargs
    return True


def gloo_group_has_no_timeout(group: Callable[[], dist.ProcessGroup]) -> bool:
    """Whether it makes a gloo group beside NCCL with torch's own timeout."""
    nccl = mock.patch("torch.distributed.get_backend", return_value="nccl")
    with nccl, mock.patch("torch.distributed.new_group") as new_group:
        inspect.unwrap(group)()  # without its cache
    return "timeout" not in new_group.call_args.kwargs
