"""What the command line asks of one training or evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Job:
    """fast-reid's command-line flags as values.

    Attributes:
        config_file: a path, or the name of a config that comes with the package; "": the defaults.
        opts: key, value, key, value ... on top of the config file.
        resume: go on from the last checkpoint in ``OUTPUT_DIR``.
        eval_only: evaluate ``MODEL.WEIGHTS`` instead of training.
        num_gpus: processes on this machine. num_machines, machine_rank: all machines, and which of them this one is.
        dist_url: where the processes meet.
    """

    config_file: str = ""
    opts: Sequence[str] = ()
    resume: bool = False
    eval_only: bool = False
    num_gpus: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
