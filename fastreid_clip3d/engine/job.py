"""What the command line asks of one training or evaluation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from fastreid_clip3d.errors import ClearError


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

    Raises:
        ClearError: a path where keys and values are expected, as in ``--resume logs/run``.
    """

    config_file: str = ""
    opts: Sequence[str] = ()
    resume: bool = False
    eval_only: bool = False
    num_gpus: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"

    def __post_init__(self) -> None:
        first = self.opts[0] if self.opts else ""
        if not (os.sep in first or first.endswith((".pth", ".yml", ".yaml")) or os.path.isdir(first)):
            return
        if self.eval_only:
            remedy = f"--eval-only takes no path. Name the weights by key: --eval-only MODEL.WEIGHTS {first}"
        elif self.resume:
            folder = first if not first.endswith(".pth") else os.path.dirname(first) or "."
            remedy = f"--resume takes no path. Name the run's folder by key: --resume OUTPUT_DIR {folder}"
        else:
            remedy = "Options come in pairs, KEY VALUE; a config file is named by --config-file"
        raise ClearError(f"{first}: a path where a key is expected. {remedy}")
