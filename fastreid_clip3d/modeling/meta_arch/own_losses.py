"""The method's losses, built from a config together with the teacher and the bodies that they need."""

from __future__ import annotations

from typing import Any

import torch
from fastreid.config import CfgNode

from fastreid_clip3d.body import load_body_model
from fastreid_clip3d.body.constants import GENDERS
from fastreid_clip3d.common import loss_names
from fastreid_clip3d.modeling.heads.mlp_head import global_feature_dim
from fastreid_clip3d.modeling.losses import (
    BodyShapeLoss,
    ClothesAdversarialLoss,
    GlobalDistillLoss,
    OTLoss,
    ProbeDistillLoss,
)
from fastreid_clip3d.teacher.guidance import Guidance, guidance_from_config


def build_own_losses(cfg: CfgNode, guidance: Guidance | None = None) -> dict[str, Any]:
    """The losses that ``MODEL.LOSSES.NAME`` asks for and the teacher's guidance, as arguments of ``CLIP3DReID``.

    `guidance`: the teacher's side; None: the one that ``MODEL.TEACHER`` names.
    """
    names = cfg.MODEL.LOSSES.NAME
    arguments: dict[str, Any] = {}
    if loss_names.OT in names or loss_names.GLOBAL_DISTILL in names:
        guidance = arguments["guidance"] = guidance or guidance_from_config(cfg)
        teacher_dim = guidance.phrase_table.shape[1]
        if loss_names.OT in names:
            arguments["ot_loss"] = _ot_loss(cfg, teacher_dim)
        if loss_names.GLOBAL_DISTILL in names:
            arguments["global_distill_loss"] = _global_distill_loss(cfg, teacher_dim)
    if loss_names.BODY_SHAPE in names:
        arguments["body_shape_loss"] = _body_shape_loss(cfg)
    if loss_names.CLOTHES in names:
        keys = cfg.MODEL.LOSSES.CLOTHES_ADVERSARIAL
        persons = torch.tensor(keys.CLOTHES_PERSONS, dtype=torch.int64)
        arguments["clothes_loss"] = ClothesAdversarialLoss(
            global_feature_dim(cfg), persons, keys.CLASSIFIER_SCALE, keys.EPSILON
        )
        arguments["clothes_start_epoch"] = keys.START_EPOCH
    return arguments


def _ot_loss(cfg: CfgNode, teacher_dim: int) -> OTLoss:
    keys = cfg.MODEL.LOSSES.OT
    return OTLoss(
        text_dim=teacher_dim,
        feat_dim=cfg.MODEL.BACKBONE.FEAT_DIM,
        hidden_dim=keys.HIDDEN_DIM,
        reg=keys.REG,
        num_iters=keys.NUM_ITERS,
        tolerance=keys.TOLERANCE,
        differentiable=keys.DIFFERENTIABLE,
        contrast=keys.CONTRAST,
        contrast_temperature=keys.CONTRAST_TEMPERATURE,
        center=keys.CENTER,
    )


def _global_distill_loss(cfg: CfgNode, teacher_dim: int) -> GlobalDistillLoss | ProbeDistillLoss:
    keys = cfg.MODEL.LOSSES.GLOBAL_DISTILL
    if keys.REDUCTION == "kl":
        return ProbeDistillLoss(teacher_dim, cfg.MODEL.HEADS.NUM_CLASSES, keys.TEMPERATURE)
    return GlobalDistillLoss(teacher_dim, global_feature_dim(cfg, keys.FEATURE), keys.HIDDEN_DIM, keys.REDUCTION)


def _body_shape_loss(cfg: CfgNode) -> BodyShapeLoss:
    bodies = {
        gender: load_body_model(cfg.MODEL.BODY.PATH, gender, cfg.MODEL.BODY.NUM_BETAS)
        for gender in ("neutral", *GENDERS)
    }
    spaces = {gender: (body.v_template, body.shapedirs) for gender, body in bodies.items()}
    keys = cfg.MODEL.LOSSES.BODY_SHAPE
    return BodyShapeLoss(
        global_feature_dim(cfg, keys.FEATURE),
        keys.HIDDEN_DIM,
        spaces["neutral"],
        [spaces[gender] for gender in GENDERS],
        keys.IGNORE_SIZE,
    )
