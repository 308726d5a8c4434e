"""fast-reid's ``launch`` with several processes on CPUs as well: gloo where there is no CUDA device, NCCL where there is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator

import torch
import torch.distributed as dist

from fastreid_clip3d.errors import ClearError


def set_up_local_group(processes_per_machine: int) -> None:
    """Makes the process group of this machine, which ``comm.get_local_rank`` reads. All processes call it."""
    from fastreid.utils import comm

    world_size, rank = dist.get_world_size(), dist.get_rank()
    for first in range(0, world_size, processes_per_machine):
        ranks = list(range(first, min(first + processes_per_machine, world_size)))
        group = dist.new_group(ranks)
        if rank in ranks:
            comm._LOCAL_PROCESS_GROUP = group


@contextmanager
def process_group(use_cuda: bool, local_rank: int, processes_per_machine: int, **rendezvous: Any) -> Iterator[None]:
    """The process group of a run, and of this machine: NCCL on CUDA devices, gloo on CPUs.

    `rendezvous`: ``init_method``, ``world_size`` and ``rank`` of ``init_process_group``; none where torchrun has set the
    environment. After an error the group is left as it is: its other processes may be gone, and taking leave of them
    would wait for ever.
    """
    if use_cuda:
        torch.cuda.set_device(local_rank)
    dist.init_process_group(backend="nccl" if use_cuda else "gloo", **rendezvous)
    set_up_local_group(processes_per_machine)
    yield
    dist.destroy_process_group()


def _distributed_worker(
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


def apply() -> None:
    """Puts our worker in the place of the one that asserts CUDA."""
    import fastreid.engine.launch  # the submodule; ``fastreid.engine.launch`` the attribute is its function
    import sys

    sys.modules["fastreid.engine.launch"]._distributed_worker = _distributed_worker
