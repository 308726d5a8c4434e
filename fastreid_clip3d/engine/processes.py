"""The processes of one run: started together, and ended together when one of them cannot go on.

When a process is killed, the others would wait for it for ever. So all of them end, and one message names the lost rank
and the remedy.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from fastreid_clip3d.common.parent_death import children_end_at_once
from fastreid_clip3d.common.processes import end_with_parent
from fastreid_clip3d.compat.distributed import lost_peer
from fastreid_clip3d.compat.launch import process_group
from fastreid_clip3d.engine.job import Job
from fastreid_clip3d.errors import ClearError, message_of

Main = Callable[[Job], Any]

LOST_PEER = 75
"""Exit code of a process that ends because another one is gone."""

GO_ON = "Go on from the last checkpoint with the same command and --resume."
SECONDS_TO_END = 4.0
"""What ranks get to end by themselves before they are killed."""
_LONGEST_MESSAGE = 16_000  # characters; fits into the pipe, so that the sender never waits for a reader


def started_by_torchrun() -> bool:
    """Whether torchrun (or another launcher with its environment variables) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def run_local_processes(main: Main, job: Job, use_cuda: bool) -> None:
    """Runs `main(job)` in ``--num-gpus`` new processes of this machine and waits for all of them.

    Raises:
        ClearError: what a process said, or which one ended without a word and what to do.
    """
    per_machine, machines = job.num_gpus, job.num_machines
    url = job.dist_url if machines > 1 else _free_url(job.dist_url)
    messages = multiprocessing.get_context("spawn").SimpleQueue()
    shared = (messages, main, job, use_cuda, url)
    with children_end_at_once():
        context = start_processes(_local_process, shared, per_machine, join=False, start_method="spawn")
    first_rank = job.machine_rank * per_machine
    try:
        with _ended_by_sigterm():
            while not context.join():
                pass
    except (ProcessExitedException, ProcessRaisedException) as error:
        if not messages.empty():
            raise ClearError(messages.get()) from None
        cause = _first_to_end(context.processes, error.error_index)
        exit_code = context.processes[cause].exitcode
        if exit_code == LOST_PEER:
            where = "on another machine" if machines > 1 else "of this run"
            raise ClearError(f"A process {where} ended early, and the run with it. {GO_ON}") from None
        if isinstance(error, ProcessRaisedException) and error.error_index == cause:
            raise
        raise ClearError(
            f"Rank {first_rank + cause} of {per_machine * machines} was ended by {_reason(exit_code)}, and the run "
            f"with it. {GO_ON}"
        ) from None
    finally:
        _end(context.processes)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """While entered, SIGTERM (of systemd, slurm or docker) ends this process as an exception would, after its ranks."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _local_process(local_rank: int, messages: Any, main: Main, job: Job, use_cuda: bool, url: str) -> None:
    """One process of :func:`run_local_processes`. It ends when the command ends, however that came about."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command too, which ends its ranks
    per_machine = job.num_gpus
    if not use_cuda and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // per_machine))
    rank = job.machine_rank * per_machine + local_rank
    world_size = job.num_machines * per_machine
    try:
        with process_group(use_cuda, local_rank, per_machine, init_method=url, world_size=world_size, rank=rank):
            main(job)
    except ClearError as error:
        messages.put(message_of(error)[:_LONGEST_MESSAGE])
        sys.exit(2)
    except RuntimeError as error:
        if lost_peer(error):
            sys.exit(LOST_PEER)
        raise
    finally:
        gc.freeze()  # a quick end, as in run_tool


def run_under_torchrun(main: Main, job: Job, use_cuda: bool) -> Any:
    """Runs `main(job)` as one of the processes that torchrun has started. Only the first error is printed."""
    local_rank, per_machine = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    store = None

    def say_why(*_: object) -> NoReturn:
        if _may_report(store):
            print(
                f"error: torchrun ended the run, since one of its processes ended. {GO_ON}", file=sys.stderr, flush=True
            )
        os._exit(128 + signal.SIGTERM)

    try:
        with process_group(use_cuda, local_rank, per_machine):
            store = dist.distributed_c10d._get_default_store()
            signal.signal(signal.SIGTERM, say_why)  # torchrun sends it to the others when one process has ended
            return main(job)
    except ClearError:
        if not _may_report(store):
            exit_after_the_others()
        raise
    except RuntimeError as error:
        if not lost_peer(error):
            raise
        if _may_report(store):
            print(
                f"error: rank {os.environ['RANK']} lost its connection to another process of the run, which was ended "
                f"(torchrun's report names it). {GO_ON}",
                file=sys.stderr,
            )
        sys.exit(LOST_PEER)


def exit_after_the_others() -> NoReturn:
    """Ends this process with exit code 2 after three seconds, so that the process with the message ends first.

    torchrun ends all processes as soon as one has ended.
    """
    time.sleep(3)
    sys.exit(2)


def _may_report(store: Any) -> bool:
    """Whether no other process of the run has printed an error yet."""
    try:
        return store is None or store.add("fastreid_clip3d/errors", 1) == 1
    except RuntimeError:  # the process that kept the store is gone
        return True


def _first_to_end(processes: list[Any], noticed: int) -> int:
    """The process that ended first: the one that was noticed, unless it ended because another one was gone."""
    if processes[noticed].exitcode != LOST_PEER:
        return noticed
    others = [place for place, process in enumerate(processes) if process.exitcode not in (0, LOST_PEER, None)]
    return others[0] if others else noticed


def _reason(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"{name} (did the machine run out of memory?)" if name == "SIGKILL" else name


def _end(processes: list[Any]) -> None:
    """Leaves no process behind, whatever ended the waiting (Ctrl-C, for instance)."""
    for process in processes:
        if process.is_alive():
            process.terminate()
    deadline = time.monotonic() + SECONDS_TO_END
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def _free_url(url: str) -> str:
    """The address asked for, or one with a free port where that one is taken, by another run for instance."""
    parts = urlsplit("tcp://127.0.0.1:0" if url == "auto" else url)
    if parts.scheme != "tcp" or parts.hostname is None:
        return url
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((parts.hostname, parts.port or 0))
        except OSError:
            probe.bind((parts.hostname, 0))
        return f"tcp://{parts.hostname}:{probe.getsockname()[1]}"
