"""The first lines of a run's log, and its config.yaml."""

from __future__ import annotations

from pathlib import Path

import torch
from fastreid.config import CfgNode
from fastreid.utils import comm
from fastreid.utils.collect_env import collect_env_info
from fastreid.utils.env import seed_all_rng
from fastreid.utils.logger import setup_logger

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.engine.job import Job


def set_up(cfg: CfgNode, job: Job) -> None:
    """Logs machine, command and config as fast-reid's ``default_setup`` does, writes ``config.yaml``, and seeds.

    An evaluation leaves the ``config.yaml`` of a folder that holds a training as it is. fast-reid's would overwrite it
    with the evaluation's, which has neither the losses nor the schedule, and a later ``--resume`` would take that.
    """
    folder, rank = Path(cfg.OUTPUT_DIR), comm.get_rank()
    if comm.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
    logger = setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="fastreid_clip3d")
    logger.info(f"Rank of current process: {rank}. World size: {comm.get_world_size()}")
    logger.info(f"Environment info:\n{collect_env_info()}")
    logger.info(f"Command line arguments: {job}")
    if job.config_file:
        logger.info(f"Contents of args.config_file={job.config_file}:\n{Path(job.config_file).read_text()}")
    logger.info(f"Running with full config:\n{cfg}")
    if comm.is_main_process():
        path = folder / "config.yaml"
        if job.eval_only and path.is_file() and _holds_a_training(folder):
            logger.info(f"{path.absolute()} is that of the training and stays as it is")
        else:
            write_atomically(path, cfg.dump().encode())
            logger.info(f"Full config saved to {path.absolute()}")
    seed_all_rng(cfg.SEED + rank if cfg.SEED >= 0 else None)
    if not job.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def _holds_a_training(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("last_checkpoint", "model_final.pth"))
