"""CLIP3DReID: fast-reid's baseline whose student learns body shape from CLIP and from rendered bodies (paper, Eq. 10).

Shape letters: R real images, S synthetic images, d' student width, N patches, d teacher width.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from fastreid.config import CfgNode, configurable
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from fastreid.utils.events import get_event_storage
from torch import Tensor, nn

from fastreid_clip3d.body import load_body_model
from fastreid_clip3d.modeling.backbones.build import StudentMaps, student_maps, whole_students
from fastreid_clip3d.modeling.heads.mlp_head import global_feature_dim
from fastreid_clip3d.modeling.losses import BodyShapeLoss, ClothesAdversarialLoss, GlobalDistillLoss, OTLoss
from fastreid_clip3d.common import loss_names
from fastreid_clip3d.teacher.guidance import Guidance, guidance_from_config

logger = logging.getLogger(__name__)

GENDERS = ("female", "male")
"""Order of ``synthetic_gender`` in a batch."""


@META_ARCH_REGISTRY.register()
class CLIP3DReID(Baseline):
    """The student with its losses. In inference it is fast-reid's baseline: backbone and head, nothing else.

    A loss whose name is not in ``MODEL.LOSSES.NAME`` has no module here; with none of ours, training is fast-reid's
    baseline step for step. The teacher is held outside the module tree: it is in no state dict, no optimiser, and
    ``train()`` does not reach it. Its phrase table is in the state dict: searching by phrase needs no teacher then.

    Training batch: see ``data.training_set``. Returns losses by name: fast-reid's, and ``loss_ot`` (alpha L_OT),
    ``loss_global`` (beta L_global), ``loss_ot_synthetic`` and ``loss_body_shape`` (gamma L_OT^syn, gamma L_3D).
    """

    @configurable
    def __init__(
        self,
        *,
        ot_loss: OTLoss | None = None,
        global_distill_loss: GlobalDistillLoss | None = None,
        body_shape_loss: BodyShapeLoss | None = None,
        clothes_loss: ClothesAdversarialLoss | None = None,
        clothes_start_epoch: int = 0,
        scales: dict[str, float],
        guidance: Guidance | None = None,
        separate_statistics: bool = False,
        compile_backbone: bool = False,
        **baseline: Any,
    ) -> None:
        super().__init__(**baseline)
        self.ot_loss, self.global_distill_loss = ot_loss, global_distill_loss
        self.body_shape_loss, self.clothes_loss = body_shape_loss, clothes_loss
        self.clothes_start_epoch = clothes_start_epoch
        self.scales = scales
        self.separate_statistics = separate_statistics
        self._outside_module_tree = (guidance,)
        if ot_loss is not None:
            # In the checkpoint, so that phrases can be searched for without the teacher.
            self.register_buffer("phrase_table", guidance.phrase_table.float().clone())
        if compile_backbone:
            self.backbone.compile()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        losses, names = cfg.MODEL.LOSSES, cfg.MODEL.LOSSES.NAME
        loss_names.check_loss_names(names)
        with whole_students():
            student = super().from_config(cfg)  # first, so that its initial weights do not depend on the losses
        local_dim, global_dim = cfg.MODEL.BACKBONE.FEAT_DIM, global_feature_dim(cfg)
        arguments: dict[str, Any] = {
            "scales": {
                "ot": losses.OT.SCALE,
                "ot_synthetic": losses.OT.SYNTHETIC_SCALE,
                "global": losses.GLOBAL_DISTILL.SCALE,
                "body_shape": losses.BODY_SHAPE.SCALE,
                "clothes": losses.CLOTHES_ADVERSARIAL.SCALE,
            },
            "separate_statistics": cfg.MODEL.SYNTHETIC_STATISTICS == "separate",
            "compile_backbone": cfg.MODEL.COMPILE,
        }
        if loss_names.OT in names or loss_names.GLOBAL_DISTILL in names:
            guidance = arguments["guidance"] = guidance_from_config(cfg)
            teacher_dim = guidance.phrase_table.shape[1]
            if loss_names.OT in names:
                keys = losses.OT
                arguments["ot_loss"] = OTLoss(
                    teacher_dim, local_dim, keys.HIDDEN_DIM, keys.REG, keys.NUM_ITERS, keys.TOLERANCE, keys.DIFFERENTIABLE,
                    keys.CONTRAST, keys.CONTRAST_TEMPERATURE,
                )  # fmt: skip
            if loss_names.GLOBAL_DISTILL in names:
                keys = losses.GLOBAL_DISTILL
                arguments["global_distill_loss"] = GlobalDistillLoss(
                    teacher_dim, global_dim, keys.HIDDEN_DIM, keys.REDUCTION
                )
        if loss_names.BODY_SHAPE in names:
            arguments["body_shape_loss"] = _body_shape_loss(cfg, global_dim)
        if loss_names.CLOTHES in names:
            keys = losses.CLOTHES_ADVERSARIAL
            persons = torch.tensor(keys.CLOTHES_PERSONS, dtype=torch.int64)
            arguments["clothes_loss"] = ClothesAdversarialLoss(global_dim, persons, keys.CLASSIFIER_SCALE, keys.EPSILON)
            arguments["clothes_start_epoch"] = keys.START_EPOCH
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

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor] | Tensor:
        if not self.training:
            return super().forward(batched_inputs)
        # fast-reid marks batches that only refresh batch-norm statistics by targets of -1; to ask for them would wait.
        targets = batched_inputs["targets"].clamp(min=0)
        real, synthetic = self.student_maps(batched_inputs)
        outputs = self.heads(real.head_input, targets)
        losses = self.losses(outputs, targets)
        losses.update(self.distillation(batched_inputs, real, outputs["features"], synthetic))
        if self.clothes_loss is not None:
            losses.update(self._clothes_losses(outputs["features"], batched_inputs["clothes_ids"]))
        return losses

    def _clothes_losses(self, features: Tensor, clothes_ids: Tensor) -> dict[str, Tensor]:
        """CAL's two losses; the adversarial one counts from its first epoch on."""
        losses = self.clothes_loss(features, clothes_ids)
        started = get_event_storage().epoch >= self.clothes_start_epoch
        return {
            "loss_clothes": losses["loss_clothes"],
            "loss_cal": losses["loss_cal"] * (self.scales["clothes"] if started else 0.0),
        }

    def student_maps(self, batch: dict[str, Any]) -> tuple[StudentMaps, StudentMaps | None]:
        """What the student makes of the real and of the synthetic half; None without one."""
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
        self, batch: dict[str, Any], real: StudentMaps, real_features: Tensor, synthetic: StudentMaps | None
    ) -> dict[str, Tensor]:
        """The method's own losses, weighted, by name; `real_features` is f_id of the real half, [R, d']."""
        losses = {}
        needs_labels = self.ot_loss is not None and self.scales["ot"] > 0
        if needs_labels or self.global_distill_loss is not None:
            teacher_features, phrase_choices = self.guidance.answers_for(batch)
        table = self.ot_loss.project(self.phrase_table) if self.ot_loss is not None else None
        if needs_labels:
            transport = self.ot_loss(local_features(real.feature_map), table, phrase_choices)
            losses["loss_ot"] = self.scales["ot"] * transport
        if self.global_distill_loss is not None:
            losses["loss_global"] = self.scales["global"] * self.global_distill_loss(real_features, teacher_features)
        if synthetic is None:
            return losses
        if self.ot_loss is not None and self.scales["ot_synthetic"] > 0:
            transport = self.ot_loss(local_features(synthetic.feature_map), table, batch["synthetic_phrase_choices"])
            losses["loss_ot_synthetic"] = self.scales["ot_synthetic"] * transport
        if self.body_shape_loss is not None:
            distance = self.body_shape_loss(
                self.global_features(synthetic.head_input), batch["synthetic_betas"], batch["synthetic_gender"]
            )
            losses["loss_body_shape"] = self.scales["body_shape"] * distance
        return losses

    def global_features(self, head_input: Tensor) -> Tensor:
        """f_id [B, d'] of what the head pools, as it gives it to the losses (before or after the neck)."""
        features = self.heads.pool_layer(head_input)
        if self.heads.neck_feat == "after":
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


def _body_shape_loss(cfg: CfgNode, feature_dim: int) -> BodyShapeLoss:
    bodies = {
        gender: load_body_model(cfg.MODEL.BODY.PATH, gender, cfg.MODEL.BODY.NUM_BETAS)
        for gender in ("neutral", *GENDERS)
    }
    spaces = {gender: (body.v_template, body.shapedirs) for gender, body in bodies.items()}
    return BodyShapeLoss(
        feature_dim, cfg.MODEL.LOSSES.BODY_SHAPE.HIDDEN_DIM, spaces["neutral"], [spaces[gender] for gender in GENDERS]
    )
