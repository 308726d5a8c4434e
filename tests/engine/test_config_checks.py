"""Names, sizes and ranges of a config are checked in one place, for a training and for an evaluation."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from fastreid.modeling.heads import REID_HEADS_REGISTRY

from fastreid_clip3d.config import ALLOWED, get_cfg
from fastreid_clip3d.config_loading import all_keys, load_config
from fastreid_clip3d.engine.config_checks import check_model_config, check_open_files, check_training_config
from fastreid_clip3d.engine.image_sizes import check_image_sizes
from fastreid_clip3d.engine.job import Job
from fastreid_clip3d.engine.machine import check_machine
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones.build import build_student
from tests.standins import small_config


def changed(key: str, value: Any) -> CfgNode:
    """Our small config with one key changed, past the check of types."""
    cfg = small_config()
    cfg.DATALOADER.SAMPLER_TRAIN = "NaiveIdentitySampler"
    node = cfg
    *groups, name = key.split(".")
    for group in groups:
        node = node[group]
    node[name] = value
    return cfg


def test_a_config_that_is_right_passes() -> None:
    check_training_config(changed("SEED", 0))  # raises ClearError otherwise


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.META_ARCHITECTURE", "CLIP3DReId", "Did you mean CLIP3DReID"),
        ("MODEL.META_ARCHITECTURE", "MyOwn", "the module that registers it stands in IMPORTS"),
        ("MODEL.BACKBONE.NAME", "build_resnet_backbon", "Did you mean build_resnet_backbone"),
        ("MODEL.HEADS.NAME", "MLPHed", "Did you mean MLPHead"),
        ("MODEL.HEADS.POOL_LAYER", "GlobalAvgPol", "Did you mean GlobalAvgPool"),
        ("MODEL.HEADS.CLS_LAYER", "CircleSoftmx", "Did you mean CircleSoftmax"),
        ("MODEL.HEADS.NECK_FEAT", "befor", "Did you mean before"),
        ("MODEL.BACKBONE.NORM", "BatchNorm", "Known: BN, FrozenBN"),
        ("INPUT.SIZE_TEST", [256], "INPUT.SIZE_TEST is .256.; it must be the height and the width"),
        ("INPUT.SIZE_TEST", [256, 128, 3], "the height and the width"),
        ("INPUT.SIZE_TRAIN", [0, 128], "the height and the width"),
        ("INPUT.SIZE_TRAIN", [256, -1], "the height and the width"),
        ("INPUT.SIZE_TRAIN", "256x128", "the height and the width"),
        ("INPUT.SIZE_TRAIN", ["a", "b"], "the height and the width"),
        ("MODEL.BACKBONE.FEAT_DIM", 0, "FEAT_DIM is 0; it must be at least 1"),
        ("MODEL.BACKBONE.FEAT_DIM", -1, "FEAT_DIM is -1; it must be at least 1"),
        ("DATALOADER.NUM_WORKERS", -1, "NUM_WORKERS is -1; it must be at least 0"),
        ("TEST.IMS_PER_BATCH", 0, "TEST.IMS_PER_BATCH is 0"),
        ("TEST.EVALUATION.DEVICE", "gpu", "TEST.EVALUATION.DEVICE is 'gpu'; it must be cpu, cuda or cuda:N"),
    ],
)
def test_what_no_model_can_have_is_refused_for_training_and_evaluation(key: str, value: Any, message: str) -> None:
    for check in (check_model_config, check_training_config):
        with pytest.raises(ClearError, match=message):
            check(changed(key, value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.OPT", "AdmW", "Did you mean AdamW"),
        ("SOLVER.OPT", "LBFGS", "no optimiser that fast-reid's trainer can use"),
        ("SOLVER.SCHED", "CosineAnnealing", "Did you mean CosineAnnealingLR"),
        ("DATALOADER.SAMPLER_TRAIN", "NaiveIdentitySampeler", "Did you mean NaiveIdentitySampler"),
        ("MODEL.LOSSES.NAME", ("CrossEntropyLos",), "CrossEntropyLoss"),
    ],
)
def test_what_only_training_reads_is_refused_for_training_alone(key: str, value: Any, message: str) -> None:
    check_model_config(changed(key, value))
    with pytest.raises(ClearError, match=message):
        check_training_config(changed(key, value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.LOSSES.OT.REG", "0", "MODEL.LOSSES.OT.REG is 0.0; it must be above 0"),
        ("MODEL.LOSSES.OT.NUM_ITERS", "0", "NUM_ITERS is 0; it must be at least 1"),
        ("MODEL.LOSSES.OT.HIDDEN_DIM", "-4", "HIDDEN_DIM is -4; it must be at least 0"),
        ("MODEL.LOSSES.GLOBAL_DISTILL.REDUCTION", "average", "must be one of mean, sum"),
        ("MODEL.LOSSES.CLOTHES_ADVERSARIAL.EPSILON", "1.5", "must be 0 to 1"),
        ("WRITE_PERIOD", "0", "WRITE_PERIOD is 0; it must be at least 1"),
        ("TEST.EVALUATION.PER_QUERY", "parket", "Did you mean parquet"),
        ("SOLVER.AMP.DTYPE", "float32", "one of float16, bfloat16"),
        ("SEED", "-2", "SEED is -2; it must be -1 to"),
    ],
)
def test_values_out_of_range_are_refused_when_the_config_is_loaded(key: str, value: str, message: str) -> None:
    with pytest.raises(ClearError, match=message):
        load_config("", [key, value])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"REDUCTION": "kl", "FEATURE": "after"}, "GLOBAL_DISTILL.FEATURE after has no effect"),
        ({"REDUCTION": "kl", "HIDDEN_DIM": 8}, "GLOBAL_DISTILL.HIDDEN_DIM 8 has no effect"),
        ({"REDUCTION": "cosine", "FEATURE": "after"}, ""),
        ({"REDUCTION": "kl"}, ""),
    ],
)
def test_l_global_by_class_logits_takes_no_key_of_f_id(options: dict[str, Any], message: str) -> None:
    cfg = changed("MODEL.LOSSES.NAME", ("CrossEntropyLoss", "GlobalDistillLoss"))
    cfg.MODEL.LOSSES.GLOBAL_DISTILL.HIDDEN_DIM = 0
    for key, value in options.items():
        cfg.MODEL.LOSSES.GLOBAL_DISTILL[key] = value
    if not message:
        check_training_config(cfg)  # raises ClearError otherwise
        return
    with pytest.raises(ClearError, match=message):
        check_training_config(cfg)
    cfg.MODEL.LOSSES.NAME = ("CrossEntropyLoss",)
    check_training_config(cfg)


@pytest.mark.parametrize(
    ("loss", "group", "key", "value"),
    [
        ("GlobalDistillLoss", "GLOBAL_DISTILL", "REDUCTION", "kl"),
        ("GlobalDistillLoss", "GLOBAL_DISTILL", "FEATURE", "after"),
        ("BodyShapeLoss", "BODY_SHAPE", "FEATURE", "before"),
    ],
)
def test_a_head_without_neck_and_classifier_is_named(
    loss: str, group: str, key: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REID_HEADS_REGISTRY._obj_map, "BareHead", torch.nn.Identity)
    cfg = changed("MODEL.HEADS.NAME", "BareHead")
    cfg.MODEL.LOSSES.NAME, cfg.DATALOADER.SAMPLER_TRAIN = ("CrossEntropyLoss", loss), "MixedIdentitySampler"
    cfg.MODEL.LOSSES.GLOBAL_DISTILL.HIDDEN_DIM = 0
    check_training_config(cfg)
    cfg.MODEL.LOSSES[group][key] = value
    with pytest.raises(ClearError, match=f"MODEL.LOSSES.{group}.{key} needs a head .* MODEL.HEADS.NAME is BareHead"):
        check_training_config(cfg)


def test_a_residual_needs_equal_widths() -> None:
    options = ["MODEL.HEADS.MLP.RESIDUAL", "True", "MODEL.BACKBONE.FEAT_DIM", "512", "MODEL.HEADS.MLP.OUT_DIM"]
    load_config("", [*options, "512"])
    with pytest.raises(ClearError, match="Set OUT_DIM to 0 or 512"):
        load_config("", [*options, "256"])


def test_every_range_belongs_to_a_key_and_holds_for_its_default() -> None:
    cfg = get_cfg()
    assert set(ALLOWED) <= set(all_keys(cfg))
    load_config("")  # checks the defaults


def test_too_few_open_files_for_the_workers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (32, 4096))
    with pytest.raises(
        ClearError, match=r"NUM_WORKERS 64 needs about \d+ open files, and this shell allows 32. Run `ulimit"
    ):
        check_model_config(changed("DATALOADER.NUM_WORKERS", 64))
    check_open_files(0)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    check_open_files(64)


def test_a_size_that_a_student_cannot_take_is_found_before_the_first_step() -> None:
    """A timm ViT has position embeddings for one size."""
    cfg = small_config()
    backbone = cfg.MODEL.BACKBONE
    backbone.NAME, backbone.DEPTH, backbone.FEAT_DIM = "build_timm_backbone", "beit_base_patch16_224", 768
    cfg.MODEL.BACKBONE.PRETRAIN = False
    backbone = build_student(cfg)
    model = torch.nn.Module()
    model.backbone, model.heads = backbone, torch.nn.Identity()
    model.preprocess_image = lambda batch: batch["images"]
    model.forward = lambda batch: model.heads(backbone(batch["images"])).flatten(1)
    check_image_sizes(cfg, model)
    cfg.INPUT.SIZE_TEST = [96, 32]
    with pytest.raises(
        ClearError, match=r"INPUT.SIZE_TEST \[96, 32\]: the student build_timm_backbone beit.* cannot take"
    ):
        check_image_sizes(cfg, model)


class NoPatches(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, :0, :0]


def test_a_map_without_patches_is_refused_and_the_model_stays_as_it_was() -> None:
    model = torch.nn.Module()
    model.backbone, model.heads = NoPatches(), torch.nn.BatchNorm1d(3)
    model.preprocess_image = lambda batch: batch["images"]
    model.heads.eval()
    before = torch.get_rng_state()
    with pytest.raises(ClearError, match="feature map of 0 x 0 patches"):
        check_image_sizes(small_config(), model)
    assert model.backbone.training and not model.heads.training
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"eval_only": True, "opts": ["logs/x/model_final.pth"]}, "--eval-only MODEL.WEIGHTS logs/x/model_final.pth"),
        ({"resume": True, "opts": ["logs/x"]}, "--resume OUTPUT_DIR logs/x"),
        ({"resume": True, "opts": ["logs/x/model_0001.pth", "--config-file", "y.yml"]}, "--resume OUTPUT_DIR logs/x"),
        ({"opts": ["my.yml"]}, "named by --config-file"),
    ],
)
def test_a_path_behind_a_flag_says_where_it_goes(job: dict[str, Any], message: str) -> None:
    with pytest.raises(ClearError, match=message):
        Job(**job)
    assert Job(resume=True, opts=["OUTPUT_DIR", "logs/x"]).opts == ["OUTPUT_DIR", "logs/x"]


def test_half_precision_on_a_cpu_is_bfloat16(tmp_path: Path) -> None:
    cfg = small_config()
    cfg.OUTPUT_DIR, cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = str(tmp_path), True, "bfloat16"
    check_machine(cfg)
    cfg.SOLVER.AMP.DTYPE = "float16"
    with pytest.raises(ClearError, match="float16 needs CUDA.*SOLVER.AMP.DTYPE bfloat16"):
        check_machine(cfg)
    cfg.MODEL.DEVICE = "meta"
    with pytest.raises(ClearError, match="MODEL.DEVICE is 'meta'; it must be cpu, cuda or cuda:N"):
        check_machine(cfg)
