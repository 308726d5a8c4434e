"""Whether this machine can run a config: its devices, its processes and its output folder."""

from __future__ import annotations

import torch
from fastreid.config import CfgNode

from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.common.files import check_writable_folder
from fastreid_clip3d.data.samplers import MIXED_SAMPLER
from fastreid_clip3d.errors import ClearError


def check_processes(cfg: CfgNode, here: int, everywhere: int, training: bool) -> None:
    """Refuses what several processes cannot do: devices that are missing, batches that cannot be dealt out evenly.

    Args:
        here, everywhere: processes of this machine and of all machines.

    Raises:
        ClearError: which key, and what to set it to.
    """
    device = cfg.MODEL.DEVICE
    if device.startswith("cuda"):
        find_device(device, "MODEL.DEVICE")
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


def check_machine(cfg: CfgNode, training: bool = True) -> None:
    """Refuses a device that is not there and an output folder that cannot be written, before any work.

    When `training`, also float16 on a CPU.

    Raises:
        ClearError: which key, and what to set it to.
    """
    device = cfg.MODEL.DEVICE
    if find_device(device, "MODEL.DEVICE").type not in ("cpu", "cuda"):
        raise ClearError(f"MODEL.DEVICE is {device!r}; it must be cpu, cuda or cuda:N.")
    if training and cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.DTYPE == "float16" and not device.startswith("cuda"):
        raise ClearError(
            f"SOLVER.AMP.ENABLED is True and MODEL.DEVICE {device}: float16 needs CUDA. Add `SOLVER.AMP.ENABLED False` "
            "to the command or, for a CPU that computes in bfloat16 (AMX, AVX512-BF16), `SOLVER.AMP.DTYPE bfloat16`."
        )
    check_writable_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR")
