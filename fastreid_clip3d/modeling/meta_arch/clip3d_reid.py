"""CLIP3DReID: fast-reid's baseline whose student learns body shape from CLIP and from rendered bodies (paper, Eq. 10).

Shape letters: R real images, S synthetic images, d' student width, N patches, d teacher width.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from fastreid.config import CfgNode, configurable
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from fastreid.utils.events import get_event_storage
from torch import Tensor, nn

from fastreid_clip3d.common import loss_names
from fastreid_clip3d.common.batch import Batch
from fastreid_clip3d.modeling.backbones.build import StudentMaps, student_maps, whole_students
from fastreid_clip3d.modeling.backbones.compiling import compile_student
from fastreid_clip3d.modeling.losses import (
    BodyShapeLoss,
    ClothesAdversarialLoss,
    GlobalDistillLoss,
    OTLoss,
    ProbeDistillLoss,
)

if TYPE_CHECKING:
    from fastreid_clip3d.teacher.guidance import Guidance

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class CLIP3DReID(Baseline):
    """The student with its losses. In inference it is fast-reid's baseline: backbone and head, nothing else.

    A loss whose name is not in ``MODEL.LOSSES.NAME`` has no module here; with none of ours, training is fast-reid's
    baseline step for step. The teacher is held outside the module tree: it is in no state dict, no optimiser, and
    ``train()`` does not reach it. Its phrase table is in the state dict: searching by phrase needs no teacher then.

    Training batch: see :class:`~fastreid_clip3d.common.batch.Batch`. Returns losses by name: fast-reid's, ``loss_ot``
    (alpha L_OT), ``loss_global`` (beta L_global), ``loss_ot_synthetic`` and ``loss_body_shape`` (gamma L_OT^syn, gamma
    L_3D). With ``MODEL.LOSSES.GLOBAL_DISTILL.REDUCTION kl`` also ``loss_probe``, which trains the teacher's classifier.
    """

    @configurable
    def __init__(
        self,
        *,
        ot_loss: OTLoss | None = None,
        global_distill_loss: GlobalDistillLoss | ProbeDistillLoss | None = None,
        body_shape_loss: BodyShapeLoss | None = None,
        clothes_loss: ClothesAdversarialLoss | None = None,
        clothes_start_epoch: int = 0,
        scales: dict[str, float],
        guidance: Guidance | None = None,
        sides_of_neck: dict[str, str] | None = None,
        separate_statistics: bool = False,
        compile_backbone: bool = False,
        **baseline: Any,
    ) -> None:
        super().__init__(**baseline)
        self.ot_loss, self.global_distill_loss = ot_loss, global_distill_loss
        self.body_shape_loss, self.clothes_loss = body_shape_loss, clothes_loss
        self.clothes_start_epoch = clothes_start_epoch
        self.scales = scales
        self.sides_of_neck = {"global": "", "body_shape": "", **(sides_of_neck or {})}
        self.separate_statistics = separate_statistics
        self._outside_module_tree = (guidance,)
        if ot_loss is not None and guidance is not None:
            # In the checkpoint, so that phrases can be searched for without the teacher.
            self.register_buffer("phrase_table", guidance.phrase_table.float().clone())
        if compile_backbone:
            compile_student(self.backbone)

    @classmethod
    def from_config(cls, cfg: CfgNode, guidance: Guidance | None = None) -> dict[str, Any]:
        """The arguments of the class. `guidance`: the teacher's side; None: the one that ``MODEL.TEACHER`` names."""
        losses, names = cfg.MODEL.LOSSES, cfg.MODEL.LOSSES.NAME
        loss_names.check_loss_names(names)
        with whole_students():
            student = super().from_config(cfg)  # first, so that its initial weights do not depend on the losses
        arguments: dict[str, Any] = {
            "scales": {
                "ot": losses.OT.SCALE,
                "ot_synthetic": losses.OT.SYNTHETIC_SCALE,
                "global": losses.GLOBAL_DISTILL.SCALE,
                "body_shape": losses.BODY_SHAPE.SCALE,
                "clothes": losses.CLOTHES_ADVERSARIAL.SCALE,
            },
            "sides_of_neck": {"global": losses.GLOBAL_DISTILL.FEATURE, "body_shape": losses.BODY_SHAPE.FEATURE},
            "separate_statistics": cfg.MODEL.SYNTHETIC_STATISTICS == "separate",
            "compile_backbone": cfg.MODEL.COMPILE,
        }
        if any(name in names for name in loss_names.OURS):
            # Teacher and bodies are imported here, since a student that only searches needs neither.
            from fastreid_clip3d.modeling.meta_arch.own_losses import build_own_losses

            arguments |= build_own_losses(cfg, guidance)
        return {**student, **arguments}

    @property
    def guidance(self) -> Guidance | None:
        """The teacher's side of the training; None where no loss needs it."""
        return self._outside_module_tree[0]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Keeps the phrases of the config's teacher, whatever teacher the checkpoint was trained with."""
        key = prefix + "phrase_table"
        if self.ot_loss is not None and key in state_dict:
            saved = state_dict[key]
            if saved.shape != self.phrase_table.shape or not torch.allclose(
                saved.cpu(), self.phrase_table.cpu(), atol=1e-4
            ):
                logger.warning("The checkpoint was trained with another teacher; training goes on with the config's.")
            state_dict[key] = self.phrase_table
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, batched_inputs: Batch) -> dict[str, Tensor] | Tensor:
        if not self.training:
            return super().forward(batched_inputs)
        # fast-reid marks batches that only refresh batch-norm statistics by targets of -1. Reading targets would make
        # every step wait for the device, so -1 counts as class 0 here; nobody uses that loss.
        targets = batched_inputs["targets"].clamp(min=0)
        real, synthetic = self.student_maps(batched_inputs)
        outputs = self.heads(real.head_input, targets)
        losses = self.losses(outputs, targets)
        losses.update(self.distillation(batched_inputs, real, outputs, synthetic))
        if self.clothes_loss is not None:
            clothes = self.clothes_loss(outputs["features"], batched_inputs["clothes_ids"])
            started = get_event_storage().epoch >= self.clothes_start_epoch
            losses["loss_clothes"] = clothes["loss_clothes"]
            losses["loss_cal"] = clothes["loss_cal"] * (self.scales["clothes"] if started else 0.0)
        return losses

    def student_maps(self, batch: Batch) -> tuple[StudentMaps, StudentMaps | None]:
        """The student's maps of the real and of the synthetic half; None where the batch has no synthetic half."""
        real = self.preprocess_image(batch)
        if not self._uses_synthetic_half or "synthetic_images" not in batch:
            return student_maps(self.backbone, real), None
        synthetic = self.preprocess_image(batch["synthetic_images"])
        if self.separate_statistics:
            real_maps = student_maps(self.backbone, real)
            with running_statistics_kept(self.backbone):
                return real_maps, student_maps(self.backbone, synthetic)
        return student_maps(self.backbone, torch.cat([real, synthetic])).split(len(real))

    @property
    def _uses_synthetic_half(self) -> bool:
        transported = self.ot_loss is not None and self.scales["ot_synthetic"] > 0
        return transported or self.body_shape_loss is not None

    def distillation(
        self, batch: Batch, real: StudentMaps, outputs: dict[str, Tensor], synthetic: StudentMaps | None
    ) -> dict[str, Tensor]:
        """The method's own losses, weighted, by name.

        `outputs`: of the head on the real half: ``features``, f_id [R, d'], and ``pred_class_logits`` [R, people].
        """
        losses: dict[str, Tensor] = {}
        transport, follow = self.ot_loss, self.global_distill_loss
        table = transport.project(self.phrase_table) if transport is not None else None
        reads_labels = transport is not None and self.scales["ot"] > 0
        if self.guidance is not None and (reads_labels or follow is not None):
            teacher_features, phrase_choices = self.guidance.answers_for(batch)
            if transport is not None and reads_labels:
                distance = transport(local_features(real.feature_map), table, phrase_choices)
                losses["loss_ot"] = self.scales["ot"] * distance
            if isinstance(follow, ProbeDistillLoss):
                targets = batch["targets"].clamp(min=0)
                distance, losses["loss_probe"] = follow(outputs["pred_class_logits"], teacher_features, targets)
                losses["loss_global"] = self.scales["global"] * distance
            elif follow is not None:
                features = self._real_features(real, outputs, self.sides_of_neck["global"])
                losses["loss_global"] = self.scales["global"] * follow(features, teacher_features)
        if synthetic is None:
            return losses
        if transport is not None and self.scales["ot_synthetic"] > 0:
            distance = transport(local_features(synthetic.feature_map), table, batch["synthetic_phrase_choices"])
            losses["loss_ot_synthetic"] = self.scales["ot_synthetic"] * distance
        if self.body_shape_loss is not None:
            with running_statistics_kept(self.heads):  # this half has a pass of its own, whichever statistics are kept
                features = self.global_features(synthetic.head_input, self.sides_of_neck["body_shape"])
            distance = self.body_shape_loss(features, batch["synthetic_betas"], batch["synthetic_gender"])
            losses["loss_body_shape"] = self.scales["body_shape"] * distance
        return losses

    def _real_features(self, real: StudentMaps, outputs: dict[str, Tensor], side: str) -> Tensor:
        """f_id of the real half on one side of the neck; the head's own where it has this side already."""
        if side in ("", self.heads.neck_feat):
            return outputs["features"]
        if side == "before":
            return self.global_features(real.head_input, side)
        with running_statistics_kept(self.heads):  # the head has counted this half already
            return self.heads.bottleneck(outputs["features"][..., None, None])[..., 0, 0]

    def global_features(self, head_input: Tensor, side: str = "") -> Tensor:
        """f_id [B, d'] of the head's input, before or after the neck; "": as ``MODEL.HEADS.NECK_FEAT`` says."""
        features = self.heads.pool_layer(head_input)
        if (side or self.heads.neck_feat) == "after":
            features = self.heads.bottleneck(features)
        return features[..., 0, 0]


def local_features(feature_map: Tensor) -> Tensor:
    """A feature map [B, d', h, w] as patches [B, h w, d']."""
    return feature_map.flatten(2).transpose(1, 2)


class running_statistics_kept:
    """While entered, batch norms use the statistics of their batch and leave the running ones as they are."""

    def __init__(self, module: nn.Module) -> None:
        self.batch_norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]

    def __enter__(self) -> None:
        self.momenta = [part.momentum for part in self.batch_norms]
        for part in self.batch_norms:
            part.momentum = 0.0

    def __exit__(self, *exception: object) -> None:
        for part, momentum in zip(self.batch_norms, self.momenta):
            part.momentum = momentum
