"""fast-reid's trainer with mixed batches, safe checkpoints and evaluation by protocol."""

from __future__ import annotations

import difflib
import logging
import re
from collections import OrderedDict
from typing import Any

from fastreid.config import CfgNode
from fastreid.engine import DefaultTrainer, HookBase, hooks
from fastreid.evaluation import inference_on_dataset
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.utils import comm
from fastreid.utils.checkpoint import PeriodicCheckpointer
from torch import nn

from fastreid_clip3d.body import load_body_model
from fastreid_clip3d.common import loss_names
from fastreid_clip3d.compat.distributed import share_buffers
from fastreid_clip3d.compat.loader import DeviceLoader, use_device
from fastreid_clip3d.data.build import MIXED_SAMPLER, build_train_loader
from fastreid_clip3d.data.synthetic_bodies import SyntheticBodies
from fastreid_clip3d.data.training_set import clothes_of
from fastreid_clip3d.engine.checkpoint import LastCheckpoints, SafeCheckpointer
from fastreid_clip3d.engine.curves import CurveWriter
from fastreid_clip3d.engine.tensorboard import training_pictures
from fastreid_clip3d.engine.testing import ImagesKept, build_evaluator, results_table
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones.build import whole_students
from fastreid_clip3d.modeling.meta_arch.clip3d_reid import CLIP3DReID
from fastreid_clip3d.teacher.cache import CacheError
from fastreid_clip3d.teacher.guidance import guidance_from_config

logger = logging.getLogger(__name__)


class CLIP3DTrainer(DefaultTrainer):
    """Trains any fast-reid model; a plain fast-reid config trains on fast-reid's own data loader.

    The method's loader is used for ``META_ARCHITECTURE: CLIP3DReID`` and for ``SAMPLER_TRAIN: MixedIdentitySampler``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        use_device(cfg.MODEL.DEVICE)
        check_training_config(cfg)
        super().__init__(cfg)

    def build_train_loader(self, cfg: CfgNode) -> DeviceLoader:
        """Batches with what the losses of `cfg` need: the teacher's input or its cached answers, synthetic bodies."""
        if not uses_own_loader(cfg):
            return super().build_train_loader(cfg)
        names = cfg.MODEL.LOSSES.NAME
        needs_labels = loss_names.OT in names and cfg.MODEL.LOSSES.OT.SCALE > 0
        teacher_transform = teacher_answers = None
        if is_clip3d(cfg) and (needs_labels or loss_names.GLOBAL_DISTILL in names):
            guidance = guidance_from_config(cfg)
            teacher_answers = guidance.cache
            teacher_transform = guidance.teacher.image_transform if guidance.teacher is not None else None
        loader = build_train_loader(cfg, teacher_transform, teacher_answers)
        if teacher_answers is not None:
            try:
                teacher_answers.require(paths=loader.dataset.image_paths)
            except CacheError as error:
                if cfg.MODEL.TEACHER.MODE != "auto":
                    raise
                logger.warning(f"{error} MODEL.TEACHER.MODE is auto: the teacher runs in every step instead.")
                return self.build_train_loader(self._with_online_teacher(cfg))
        if loss_names.BODY_SHAPE in names:
            check_same_bodies(cfg, loader.dataset.synthetic)
        self._clothes_of_person = loader.dataset.clothes_of_person
        self._num_unlabelled = sum(clothes_of(record) < 0 for record in loader.dataset.img_items)
        self._sampler = loader.sampler_of_indices
        return loader

    def _with_online_teacher(self, cfg: CfgNode) -> CfgNode:
        """The config with the teacher in every step; the model is built from it too."""
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.TEACHER.MODE = self._teacher_mode = "online"
        cfg.freeze()
        return cfg

    def auto_scale_hyperparams(self, cfg: CfgNode, num_classes: int) -> CfgNode:
        """Fills in what only the training set knows: number of classes, the person of each outfit, a usable cache."""
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
        unlabelled = [name for name in cfg.DATASETS.NAMES] if owned.shape[1] == 0 else []
        if unlabelled:
            raise ClearError(
                f"{loss_names.CLOTHES} needs clothes ids, and {', '.join(unlabelled)} has none. Train on a dataset that "
                "has (LTCC, PRCC, CCVID, DeepChange, VC-Clothes, LaST, SynthCC) or leave the loss out."
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
            if isinstance(hook, PeriodicCheckpointer):
                hook = LastCheckpoints(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD)
            if isinstance(hook, hooks.EvalHook):
                hook = Evaluations(self.cfg.TEST.EVAL_PERIOD, hook._func)
            if isinstance(hook, hooks.PeriodicWriter):
                hook = CurveWriter(hook._writers, self.cfg.WRITE_PERIOD, self.iters_per_epoch)
            chosen.append(hook)
        return training_pictures(chosen, self.cfg)

    def resume_or_load(self, resume: bool = True) -> None:
        """fast-reid's, and the sampler continues with the epoch that comes next."""
        super().resume_or_load(resume=resume)
        if self.start_epoch and hasattr(getattr(self, "_sampler", None), "start_at"):
            self._sampler.start_at(self.start_epoch)
            self._trainer._data_loader_iter = iter(self._trainer.data_loader)

    def train(self) -> dict[str, Any] | None:
        """Trains what is left to train and returns the last results."""
        if self.start_epoch >= self.max_epoch:
            logger.info(f"All {self.max_epoch} epochs are done already; evaluating the last checkpoint.")
            return self.test(self.cfg, self.model)
        return super().train()

    def run_step(self) -> None:
        """One step; a loss that is not finite stops the run before the weights change."""
        try:
            super().run_step()
        except FloatingPointError as error:
            broken = re.findall(r"'(\w+)': (?:np\.float64\()?(nan|-?inf)", str(error))
            named = ", ".join(f"{name} is {value}" for name, value in broken) or "the sum of the losses is not finite"
            raise ClearError(
                f"Iteration {self.iter}: {named}. Training stops; the checkpoints in {self.cfg.OUTPUT_DIR} are from before. "
                "Lower SOLVER.BASE_LR or the loss's SCALE, or set SOLVER.AMP.ENABLED False, and go on with --resume."
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

    def after_epoch(self) -> None:
        self._epochs_done = self.trainer.epoch + 1
        super().after_epoch()

    def after_train(self) -> None:
        if self._epochs_done >= self.trainer.max_epoch:
            super().after_train()


def is_clip3d(cfg: CfgNode) -> bool:
    """Whether the config asks for the method's meta-architecture, or for one that a user derived from it."""
    architecture = META_ARCH_REGISTRY._obj_map.get(cfg.MODEL.META_ARCHITECTURE)
    return isinstance(architecture, type) and issubclass(architecture, CLIP3DReID)


def uses_own_loader(cfg: CfgNode) -> bool:
    """Whether training reads through the method's loader rather than fast-reid's."""
    return is_clip3d(cfg) or cfg.DATALOADER.SAMPLER_TRAIN == MIXED_SAMPLER


def check_same_bodies(cfg: CfgNode, bodies: SyntheticBodies) -> None:
    """Refuses synthetic images of other bodies than those whose surface the loss compares: their betas mean other shapes.

    Raises:
        ClearError: names the set, the body model and both remedies.
    """
    num_betas = bodies.betas.shape[1]
    if num_betas != cfg.MODEL.BODY.NUM_BETAS:
        raise ClearError(
            f"{bodies.index.folder} has {num_betas} shape coefficients a body; set MODEL.BODY.NUM_BETAS {num_betas} (now "
            f"{cfg.MODEL.BODY.NUM_BETAS})."
        )
    for gender, fingerprint in bodies.index.meta["body_models"].items():
        if load_body_model(cfg.MODEL.BODY.PATH, gender).fingerprint() != fingerprint:
            raise ClearError(
                f"{bodies.index.folder} was rendered from another {gender} body model than MODEL.BODY.PATH "
                f"{cfg.MODEL.BODY.PATH or '(the embedded one)'}. Render a set from that model with "
                "`clip3d render-bodies --body-model`, or set MODEL.BODY.PATH to the one it was rendered from."
            )


def check_training_config(cfg: CfgNode) -> None:
    """Refuses settings that contradict each other, before any data is read.

    Raises:
        ClearError: what contradicts what, and the keys to change.
    """
    for key, name, registry in (
        ("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
        ("MODEL.HEADS.NAME", cfg.MODEL.HEADS.NAME, REID_HEADS_REGISTRY),
    ):
        if name not in registry._obj_map:
            near = difflib.get_close_matches(name, registry._obj_map, n=3, cutoff=0.3) or sorted(registry._obj_map)
            raise ClearError(f"{key} is {name!r}, which nobody registered. Did you mean {', '.join(near)}?")
    names = cfg.MODEL.LOSSES.NAME
    loss_names.check_loss_names(names)
    if not is_clip3d(cfg):
        alien = [name for name in names if name in loss_names.OURS]
        if alien:
            raise ClearError(
                f"MODEL.LOSSES.NAME has {', '.join(alien)}, which MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} "
                "does not know; set MODEL.META_ARCHITECTURE CLIP3DReID."
            )
        return
    has_synthetic_half = cfg.DATALOADER.SAMPLER_TRAIN == MIXED_SAMPLER and cfg.DATALOADER.SYNTHETIC_PER_BATCH > 0
    if loss_names.BODY_SHAPE in names and not has_synthetic_half:
        raise ClearError(
            f"{loss_names.BODY_SHAPE} needs synthetic bodies in the batch: set DATALOADER.SAMPLER_TRAIN {MIXED_SAMPLER} and "
            "DATALOADER.SYNTHETIC_PER_BATCH above 0, or leave the loss out of MODEL.LOSSES.NAME."
        )
    if cfg.MODEL.SYNTHETIC_STATISTICS not in ("shared", "separate"):
        raise ClearError(
            f"MODEL.SYNTHETIC_STATISTICS is {cfg.MODEL.SYNTHETIC_STATISTICS!r}; it must be shared or separate."
        )
