"""What a loaded config asks for: whether its names are known and its settings fit together, before any data is read.

``load_config`` checks each key by itself. Here the modules of ``IMPORTS`` have been imported, so classes are known.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from fastreid.config import CfgNode
from fastreid.layers import any_softmax, pooling
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.heads import REID_HEADS_REGISTRY, EmbeddingHead
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.utils.registry import Registry

from fastreid_clip3d.body import load_body_model
from fastreid_clip3d.common import loss_names
from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.common.near_names import did_you_mean
from fastreid_clip3d.data.samplers import MIXED_SAMPLER, SAMPLERS
from fastreid_clip3d.data.synthetic_bodies import SyntheticBodies
from fastreid_clip3d.engine.schedule import SCHEDULES
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.meta_arch.clip3d_reid import CLIP3DReID

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]  # no stub says that a platform lacks it

OPTIMIZERS = tuple(
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")  # need closures, sparse gradients, matrices
)
NECK_FEATURES = ("before", "after")
NORMS = ("BN", "syncBN", "GhostBN", "FrozenBN", "GN")
_FILES_OF_A_PROCESS = 24
_FILES_OF_A_WORKER = 8


def is_clip3d(cfg: CfgNode) -> bool:
    """Whether the config asks for the method's meta-architecture, or for one that a user derived from it."""
    architecture = META_ARCH_REGISTRY._obj_map.get(cfg.MODEL.META_ARCHITECTURE)
    return isinstance(architecture, type) and issubclass(architecture, CLIP3DReID)


def uses_own_loader(cfg: CfgNode) -> bool:
    """Whether training reads through the method's loader rather than fast-reid's."""
    return is_clip3d(cfg) or cfg.DATALOADER.SAMPLER_TRAIN == MIXED_SAMPLER


def check_model_config(cfg: CfgNode) -> None:
    """Refuses what neither a training nor an evaluation can be built from: unknown names, sizes that are none.

    Raises:
        ClearError: the key, its value, the nearest known names and all of them.
    """
    registries: tuple[tuple[str, str, Registry], ...] = (
        ("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
        ("MODEL.HEADS.NAME", cfg.MODEL.HEADS.NAME, REID_HEADS_REGISTRY),
    )
    for key, name, registry in registries:
        if name not in registry._obj_map:
            raise ClearError(
                f"{key} {name!r} is unknown. {did_you_mean(name, registry._obj_map)} A class of your own is known once "
                "the module that registers it stands in IMPORTS."
            )
    heads = cfg.MODEL.HEADS
    head = REID_HEADS_REGISTRY.get(heads.NAME)
    if isinstance(head, type) and issubclass(head, EmbeddingHead):
        _check_word("MODEL.HEADS.POOL_LAYER", heads.POOL_LAYER, pooling.__all__)
        _check_word("MODEL.HEADS.CLS_LAYER", heads.CLS_LAYER, any_softmax.__all__)
        _check_word("MODEL.HEADS.NECK_FEAT", heads.NECK_FEAT, NECK_FEATURES)
        if heads.WITH_BNNECK:
            _check_word("MODEL.HEADS.NORM", heads.NORM, NORMS)
    _check_word("MODEL.BACKBONE.NORM", cfg.MODEL.BACKBONE.NORM, NORMS)
    for key, size in (("INPUT.SIZE_TRAIN", cfg.INPUT.SIZE_TRAIN), ("INPUT.SIZE_TEST", cfg.INPUT.SIZE_TEST)):
        is_pair = isinstance(size, (list, tuple)) and len(size) == 2
        if not is_pair or not all(type(pixels) is int and pixels >= 1 for pixels in size):
            raise ClearError(f"{key} is {size!r}; it must be the height and the width in pixels, such as [256, 128].")
    if cfg.MODEL.BACKBONE.FEAT_DIM < 1:
        raise ClearError(
            f"MODEL.BACKBONE.FEAT_DIM is {cfg.MODEL.BACKBONE.FEAT_DIM}; it must be at least 1: the backbone's width."
        )
    if cfg.DATALOADER.NUM_WORKERS < 0:
        raise ClearError(
            f"DATALOADER.NUM_WORKERS is {cfg.DATALOADER.NUM_WORKERS}; it must be at least 0 (0: no process of its own)."
        )
    if cfg.TEST.IMS_PER_BATCH < 1:
        raise ClearError(f"TEST.IMS_PER_BATCH is {cfg.TEST.IMS_PER_BATCH}; it must be at least 1.")
    if cfg.TEST.EVALUATION.DEVICE:
        find_device(cfg.TEST.EVALUATION.DEVICE, "TEST.EVALUATION.DEVICE")
    check_open_files(cfg.DATALOADER.NUM_WORKERS)


def _check_word(key: str, word: str, known: Iterable[str]) -> None:
    if word not in known:
        raise ClearError(f"{key} {word!r} is unknown. {did_you_mean(str(word), known)}")


def check_open_files(workers: int) -> None:
    """Refuses more loading processes than the system's limit of open files lets run.

    Raises:
        ClearError: the limit, and both remedies.
    """
    if resource is None:
        return  # type: ignore[unreachable]  # on Windows it is
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = _FILES_OF_A_PROCESS + _FILES_OF_A_WORKER * workers
    possible = max(0, (limit - _FILES_OF_A_PROCESS) // _FILES_OF_A_WORKER)
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise ClearError(
            f"DATALOADER.NUM_WORKERS {workers} needs about {needed} open files, and this shell allows {limit}. Run "
            f"`ulimit -n {max(1024, 2 * needed)}` first, or set DATALOADER.NUM_WORKERS to {possible}."
        )


def check_training_config(cfg: CfgNode) -> None:
    """Refuses settings that no training can have or that contradict each other, before any data is read.

    Raises:
        ClearError: what is unknown or contradicts what, and the keys to change.
    """
    check_model_config(cfg)
    if cfg.SOLVER.OPT not in OPTIMIZERS:
        raise ClearError(
            f"SOLVER.OPT {cfg.SOLVER.OPT!r} is no optimiser that fast-reid's trainer can use. "
            f"{did_you_mean(cfg.SOLVER.OPT, OPTIMIZERS)}"
        )
    _check_word("SOLVER.SCHED", cfg.SOLVER.SCHED, SCHEDULES)
    _check_word("DATALOADER.SAMPLER_TRAIN", cfg.DATALOADER.SAMPLER_TRAIN, SAMPLERS)
    names = cfg.MODEL.LOSSES.NAME
    loss_names.check_loss_names(names)
    if not is_clip3d(cfg):
        alien = [name for name in names if name in loss_names.OURS]
        if alien:
            raise ClearError(
                f"MODEL.LOSSES.NAME has {', '.join(alien)}, which MODEL.META_ARCHITECTURE "
                f"{cfg.MODEL.META_ARCHITECTURE} does not know; set MODEL.META_ARCHITECTURE CLIP3DReID."
            )
        return
    has_synthetic_half = cfg.DATALOADER.SAMPLER_TRAIN == MIXED_SAMPLER and cfg.DATALOADER.SYNTHETIC_PER_BATCH > 0
    if loss_names.BODY_SHAPE in names and not has_synthetic_half:
        raise ClearError(
            f"{loss_names.BODY_SHAPE} needs synthetic bodies in the batch: set DATALOADER.SAMPLER_TRAIN "
            f"{MIXED_SAMPLER} and DATALOADER.SYNTHETIC_PER_BATCH above 0, or leave the loss out of MODEL.LOSSES.NAME."
        )
    _check_distillation(cfg)


def _check_distillation(cfg: CfgNode) -> None:
    """Refuses keys of L_global and L_3D that the chosen reading or the head cannot have."""
    names, losses = cfg.MODEL.LOSSES.NAME, cfg.MODEL.LOSSES
    keys = losses.GLOBAL_DISTILL
    by_logits = loss_names.GLOBAL_DISTILL in names and keys.REDUCTION == "kl"
    if by_logits and (keys.FEATURE or keys.HIDDEN_DIM):
        unused = "FEATURE" if keys.FEATURE else "HIDDEN_DIM"
        value = keys.FEATURE or keys.HIDDEN_DIM
        raise ClearError(
            f"MODEL.LOSSES.GLOBAL_DISTILL.REDUCTION kl compares class logits; it has no Phi and does not read f_id, so "
            f"MODEL.LOSSES.GLOBAL_DISTILL.{unused} {value} has no effect. Leave it out, or take another REDUCTION."
        )
    head = REID_HEADS_REGISTRY.get(cfg.MODEL.HEADS.NAME)
    if isinstance(head, type) and issubclass(head, EmbeddingHead):
        return
    needs_embedding_head = {
        "GLOBAL_DISTILL.REDUCTION": by_logits,
        "GLOBAL_DISTILL.FEATURE": loss_names.GLOBAL_DISTILL in names and keys.FEATURE,
        "BODY_SHAPE.FEATURE": loss_names.BODY_SHAPE in names and losses.BODY_SHAPE.FEATURE,
    }
    for key, is_asked in needs_embedding_head.items():
        if is_asked:
            raise ClearError(
                f"MODEL.LOSSES.{key} needs a head with a neck and a classifier, EmbeddingHead or MLPHead. "
                f"MODEL.HEADS.NAME is {cfg.MODEL.HEADS.NAME}. Set one of the two, or leave the key out."
            )


def check_same_bodies(cfg: CfgNode, bodies: SyntheticBodies) -> None:
    """Refuses synthetic images of other bodies than the loss compares: their betas mean other shapes.

    Raises:
        ClearError: names the set, the body model and both remedies.
    """
    num_betas = bodies.betas.shape[1]
    if num_betas != cfg.MODEL.BODY.NUM_BETAS:
        raise ClearError(
            f"{bodies.index.folder} has {num_betas} shape coefficients per body; set MODEL.BODY.NUM_BETAS {num_betas} "
            f"(now {cfg.MODEL.BODY.NUM_BETAS})."
        )
    for gender, fingerprint in bodies.index.meta["body_models"].items():
        if load_body_model(cfg.MODEL.BODY.PATH, gender).fingerprint() != fingerprint:
            raise ClearError(
                f"{bodies.index.folder} was rendered from another {gender} body model than MODEL.BODY.PATH "
                f"{cfg.MODEL.BODY.PATH or '(the embedded one)'}. Render a set from that model with clip3d "
                "render-bodies --body-model, or set MODEL.BODY.PATH to the one it was rendered from."
            )
