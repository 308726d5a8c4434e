"""fast-reid's trainer with mixed batches, safe checkpoints and evaluation by protocol."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections import OrderedDict
from typing import Any

import numpy as np
from fastreid.config import CfgNode
from fastreid.engine import DefaultTrainer, HookBase, hooks
from fastreid.evaluation import inference_on_dataset
from fastreid.utils import comm
from fastreid.utils.checkpoint import PeriodicCheckpointer
from fastreid.utils.events import CommonMetricPrinter, EventWriter
from torch import nn

from fastreid_clip3d.common import loss_names
from fastreid_clip3d.compat.distributed import share_buffers
from fastreid_clip3d.compat.loader import DeviceLoader, use_device
from fastreid_clip3d.data.build import build_train_loader
from fastreid_clip3d.data.records import clothes_of
from fastreid_clip3d.engine.checkpoint import LastCheckpoints, SafeCheckpointer
from fastreid_clip3d.engine.config_checks import (
    check_same_bodies,
    check_training_config,
    is_clip3d,
    uses_own_loader,
)
from fastreid_clip3d.engine.curves import CurveWriter, ResumableJSONWriter, ResumableTensorboardWriter
from fastreid_clip3d.engine.image_sizes import check_image_sizes
from fastreid_clip3d.engine.mixed_precision import DTYPES, MixedPrecisionTrainer
from fastreid_clip3d.engine.modes import modes_kept
from fastreid_clip3d.engine.reproducible import SeededEpochs, reproducible
from fastreid_clip3d.engine.schedule import FreshSchedule, LearningRate, check_schedule, with_warmup_in_iterations
from fastreid_clip3d.engine.tensorboard import unwrapped, with_measurements
from fastreid_clip3d.engine.testing import ImagesKept, build_evaluator, check_test_sets, results_table
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones.build import whole_students
from fastreid_clip3d.teacher.cache import CacheError
from fastreid_clip3d.teacher.guidance import guidance_from_config

logger = logging.getLogger(__name__)


class CLIP3DTrainer(DefaultTrainer):
    """Trains any fast-reid model; a plain fast-reid config trains on fast-reid's own data loader.

    The method's loader is used for ``META_ARCHITECTURE: CLIP3DReID`` and for ``SAMPLER_TRAIN: MixedIdentitySampler``.
    """

    # fast-reid sets these without types.
    model: Any
    _trainer: Any
    checkpointer: Any
    _is_resumed = False

    def __init__(self, cfg: CfgNode) -> None:
        use_device(cfg.MODEL.DEVICE)
        check_training_config(cfg)
        check_test_sets(cfg)
        if cfg.SEED >= 0:
            np.random.seed(cfg.SEED + comm.get_rank())  # fast-reid draws the samplers' seed from here
        self._seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)  # fast-reid writes the config there while it builds the loader
        with warnings.catch_warnings():  # fast-reid makes a loss scale of CUDA first, even for bfloat16 on a CPU
            warnings.filterwarnings("ignore", message=".*GradScaler is enabled, but CUDA is not available.*")
            super().__init__(cfg)
        if cfg.SOLVER.AMP.ENABLED:
            self._trainer = MixedPrecisionTrainer(
                self._trainer, unwrapped(self.model).device, DTYPES[cfg.SOLVER.AMP.DTYPE]
            )
            if self.grad_scaler is not None:
                self.checkpointer.checkpointables["grad_scaler"] = self.grad_scaler
        self._reads_seldom = unwrapped(self.model).device.type != "cpu"
        self._fresh_schedule = FreshSchedule(self.optimizer, self.scheduler)
        check_image_sizes(self.cfg, unwrapped(self.model))

    def build_train_loader(self, cfg: CfgNode) -> DeviceLoader:
        """Batches with what the losses of `cfg` need: the teacher's input or its cached answers, synthetic bodies."""
        if not uses_own_loader(cfg):
            plain: Any = super().build_train_loader(cfg)
            self._iterations_per_epoch = len(plain.dataset) // cfg.SOLVER.IMS_PER_BATCH
            return reproducible(plain, self._seed)
        names = cfg.MODEL.LOSSES.NAME
        needs_labels = loss_names.OT in names and cfg.MODEL.LOSSES.OT.SCALE > 0
        teacher_transform = teacher_answers = None
        if is_clip3d(cfg) and (needs_labels or loss_names.GLOBAL_DISTILL in names):
            guidance = guidance_from_config(cfg)
            teacher_answers = guidance.cache
            teacher_transform = guidance.teacher.image_transform if guidance.teacher is not None else None
        loader = build_train_loader(cfg, teacher_transform, teacher_answers)
        dataset: Any = loader.dataset
        if teacher_answers is not None:
            try:
                teacher_answers.require(paths=dataset.image_paths)
            except CacheError as error:
                if cfg.MODEL.TEACHER.MODE != "auto":
                    raise
                logger.warning(f"{error} MODEL.TEACHER.MODE is auto: the teacher runs in every step instead.")
                return self.build_train_loader(self._with_online_teacher(cfg))
        if loss_names.BODY_SHAPE in names:
            check_same_bodies(cfg, dataset.synthetic)
        self._clothes_of_person = dataset.clothes_of_person
        self._num_unlabelled = sum(clothes_of(record) < 0 for record in dataset.img_items)
        self._iterations_per_epoch = len(dataset) // cfg.SOLVER.IMS_PER_BATCH
        return reproducible(loader, self._seed)

    def _with_online_teacher(self, cfg: CfgNode) -> CfgNode:
        """The config with the teacher in every step; the model is built from it too."""
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.TEACHER.MODE = self._teacher_mode = "online"
        cfg.freeze()
        return cfg

    def auto_scale_hyperparams(self, cfg: CfgNode, num_classes: int) -> CfgNode:
        """Fills in what the data decide: number of people, the person of each outfit, warm-up, use of a cache."""
        cfg = with_warmup_in_iterations(cfg, self._iterations_per_epoch)
        check_schedule(cfg, self._iterations_per_epoch)
        if getattr(self, "_teacher_mode", "") == "online":
            cfg = self._with_online_teacher(cfg)
        if loss_names.CLOTHES in cfg.MODEL.LOSSES.NAME:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.LOSSES.CLOTHES_ADVERSARIAL.CLOTHES_PERSONS = self._persons_of_clothes(cfg)
            cfg.freeze()
        return DefaultTrainer.auto_scale_hyperparams(cfg, num_classes)

    def _persons_of_clothes(self, cfg: CfgNode) -> list[int]:
        owned = self._clothes_of_person
        if owned.shape[1] == 0:
            raise ClearError(
                f"{loss_names.CLOTHES} needs clothes ids, and {', '.join(cfg.DATASETS.NAMES)} has none. Train on a "
                "dataset that has (LTCC, PRCC, CCVID, DeepChange, VC-Clothes, LaST, SynthCC) or leave the loss out."
            )
        if self._num_unlabelled:
            logger.warning(
                f"{self._num_unlabelled} training images have no clothes label; {loss_names.CLOTHES} leaves them out."
            )
        return owned.int().argmax(0).tolist()

    def build_hooks(self) -> list[HookBase]:
        """fast-reid's hooks, with safe checkpoints in place of its own and no "best on the test set"."""
        old = self.checkpointer
        self.checkpointer = SafeCheckpointer(
            old.model, old.save_dir, save_to_disk=old.save_to_disk, **old.checkpointables
        )
        chosen = []
        for hook in super().build_hooks():
            if isinstance(hook, hooks.LRScheduler):
                hook = LearningRate(self.optimizer, self.scheduler, self.cfg.SOLVER.FREEZE_ITERS)
            if isinstance(hook, PeriodicCheckpointer):
                hook = LastCheckpoints(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD)
            if isinstance(hook, hooks.EvalHook):
                hook = Evaluations(self.cfg.TEST.EVAL_PERIOD, hook._func)
            if isinstance(hook, hooks.PeriodicWriter):
                hook = CurveWriter(hook._writers, self.cfg.WRITE_PERIOD, self.iters_per_epoch)
            chosen.append(hook)
        return [SeededEpochs(self._seed), *with_measurements(chosen, self.cfg)]

    def build_writers(self) -> list[EventWriter]:
        """fast-reid's, of which a resumed run drops what an earlier one wrote beyond the checkpoint."""
        folder = self.cfg.OUTPUT_DIR
        return [
            CommonMetricPrinter(self.max_iter),
            ResumableJSONWriter(os.path.join(folder, "metrics.json"), self._first_iteration),
            ResumableTensorboardWriter(folder, self._first_iteration),
        ]

    def _first_iteration(self) -> int | None:
        """Where a resumed run goes on, 0 if it was ended before its first checkpoint; None where it begins anew."""
        return self.start_iter if self._is_resumed else None

    def resume_or_load(self, resume: bool = True) -> None:
        """fast-reid's; a resumed run reads the images and has the learning rate that come next in this config."""
        super().resume_or_load(resume=resume)
        self._is_resumed = resume
        if not self.start_epoch:
            return
        self._fresh_schedule.impose(self.start_epoch, self.iters_per_epoch, self.warmup_iters, self.delay_epochs)
        self.data_loader.batch_sampler.start_at(self.start_epoch * self.iters_per_epoch)
        self._trainer._data_loader_iter = iter(self.data_loader)

    def train(self) -> dict[str, Any] | None:
        """Trains what is left to train and returns the last results."""
        if self.start_epoch >= self.max_epoch:
            logger.info(f"All {self.max_epoch} epochs are done already; evaluating the last checkpoint.")
        return super().train()  # with no epoch left it evaluates and writes the scores

    def run_step(self) -> None:
        """One step; a loss that is not finite stops the run before a checkpoint is written.

        On a CPU every step's losses are checked before the weights change. On another device a check makes the host
        wait, so only the steps that end a ``WRITE_PERIOD`` or an epoch check their losses and those of all steps since.
        By then the weights may have diverged. The last checkpoint was written before that and is good.
        """
        done = self.iter + 1
        read = done % self.cfg.WRITE_PERIOD == 0 or done % self.iters_per_epoch == 0
        self._trainer.losses_wait = self._reads_seldom and not read
        try:
            super().run_step()
        except FloatingPointError as error:
            at = re.search(r"iteration=(\d+)", str(error))
            iteration = at[1] if at else self.iter
            broken = re.findall(r"'(\w+)': (?:np\.float64\()?(nan|-?inf)", str(error))
            named = ", ".join(f"{name} is {value}" for name, value in broken) or "the sum of the losses is not finite"
            raise ClearError(
                f"Iteration {iteration}: {named}. Training stops; the checkpoints in {self.cfg.OUTPUT_DIR} are from "
                "before. Lower SOLVER.BASE_LR or the loss's SCALE, set SOLVER.AMP.ENABLED False or SOLVER.AMP.DTYPE "
                "bfloat16, and go on with --resume, which takes the new settings."
            ) from error

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """fast-reid's, with pretrained weights that are either complete or an error."""
        with whole_students():
            return super().build_model(cfg)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None
    ) -> tuple[DeviceLoader, Any]:
        """The test set's loader and its evaluator."""
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Scores every dataset of ``DATASETS.TESTS``: its results, or for several datasets a dict of them by name.

        fast-reid writes the latter as ``<dataset>/<key>``, so there the keys leave the dataset out.
        """
        share_buffers(model)
        results = OrderedDict()
        for dataset_name in cfg.DATASETS.TESTS:
            loader, evaluator = cls.build_evaluator(cfg, dataset_name)
            with modes_kept(model):  # fast-reid would put frozen layers into training mode
                results[dataset_name] = inference_on_dataset(
                    ImagesKept(model), loader, evaluator, flip_test=cfg.TEST.FLIP.ENABLED
                )
            if comm.is_main_process():
                logger.info(f"Results on {dataset_name}, in percent:\n{results_table(evaluator.results)}")
        if len(results) == 1:
            return next(iter(results.values()))
        return {
            dataset: {key.removeprefix(f"{dataset}/"): value for key, value in of_dataset.items()}
            for dataset, of_dataset in results.items()
        }


class Evaluations(hooks.EvalHook):
    """fast-reid's periodic evaluation, which also takes period 0 (only at the end) and never runs after a failure."""

    def __init__(self, eval_period: int, eval_function: Any) -> None:
        super().__init__(eval_period if eval_period > 0 else 2**31, eval_function)
        self._epochs_done = 0

    def before_train(self) -> None:
        self._nothing_left = self.trainer.start_epoch >= self.trainer.max_epoch
        if self._nothing_left:  # fast-reid's writers read the epoch, which otherwise the first epoch sets
            self.trainer.epoch = self.trainer.storage.epoch = self.trainer.start_epoch - 1

    def after_epoch(self) -> None:
        self._epochs_done = self.trainer.epoch + 1
        super().after_epoch()

    def after_train(self) -> None:
        if self._nothing_left:
            self._do_eval()
        elif self._epochs_done >= self.trainer.max_epoch:
            super().after_train()
