"""One training or evaluation: what every process of ``clip3d train`` and ``tools/train_net.py`` does."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any

from fastreid.config import CfgNode

from fastreid_clip3d.compat.distributed import lost_peer
from fastreid_clip3d.config_loading import find_config, inference_config, load_config
from fastreid_clip3d.engine.config_checks import check_model_config, check_training_config
from fastreid_clip3d.engine.job import Job
from fastreid_clip3d.engine.machine import check_machine
from fastreid_clip3d.engine.set_up import set_up
from fastreid_clip3d.engine.trainer import CLIP3DTrainer
from fastreid_clip3d.errors import ClearError, message_of
from fastreid_clip3d.modeling.weights import load_weights

logger = logging.getLogger(__name__)


def run(job: Job) -> Any:
    """Trains (or resumes), or with ``eval_only`` evaluates; returns the results on rank 0."""
    cfg = load_config(job.config_file, job.opts)
    if job.eval_only:
        cfg = inference_config(cfg)
    cfg.freeze()
    check_machine(cfg, training=not job.eval_only)
    (check_model_config if job.eval_only else check_training_config)(cfg)
    set_up(cfg, dataclasses.replace(job, config_file=str(find_config(job.config_file)) if job.config_file else ""))
    logging.getLogger("fastreid.engine.train_loop").addFilter(one_line_for_known_errors)
    return evaluate(cfg) if job.eval_only else train(cfg, job.resume)


def one_line_for_known_errors(record: logging.LogRecord) -> bool:
    """A logging filter: an error whose message is clear needs no traceback in the log."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ClearError):
        record.msg, record.args, record.exc_info = "Training stopped: %s", (message_of(error),), None
    elif error is not None and lost_peer(error):
        record.msg, record.args, record.exc_info = "Training stopped: %s", (str(error),), None
    return True


def train(cfg: CfgNode, resume: bool) -> Any:
    """Trains from ``MODEL.WEIGHTS`` or, with `resume`, from the last checkpoint of ``OUTPUT_DIR``."""
    if not resume and os.path.exists(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint")):
        logger.warning(
            f"{cfg.OUTPUT_DIR} holds the checkpoints of an earlier training. This one begins anew, overwrites them and "
            "adds its curves to theirs. To go on with the earlier one add --resume; to keep it set another OUTPUT_DIR."
        )
    if cfg.SEED >= 0 and cfg.CUDNN_BENCHMARK and cfg.MODEL.DEVICE.startswith("cuda"):
        logger.info(
            f"SEED is {cfg.SEED}, but CUDNN_BENCHMARK lets cuDNN choose its algorithms by their speed, so two runs "
            "differ in their last digits. Set CUDNN_BENCHMARK False for equal runs."
        )
    trainer = CLIP3DTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer.train()


def evaluate(cfg: CfgNode) -> Any:
    """Evaluates ``MODEL.WEIGHTS`` on every dataset of ``DATASETS.TESTS``."""
    if not cfg.MODEL.WEIGHTS:
        raise ClearError("--eval-only needs a checkpoint: add `MODEL.WEIGHTS logs/.../model_final.pth` to the command.")
    model = CLIP3DTrainer.build_model(cfg)
    load_weights(model, cfg.MODEL.WEIGHTS, "inference")
    return CLIP3DTrainer.test(cfg, model)
