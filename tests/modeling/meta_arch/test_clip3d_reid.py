"""The meta-architecture: what is built, what is trained, what is saved, and that it reduces to fast-reid's baseline."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from fastreid.modeling.meta_arch import build_model
from fastreid.solver import build_optimizer
from fastreid.utils.events import EventStorage

from fastreid_clip3d.body import load_body_model
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones.build import student_maps
from fastreid_clip3d.modeling.backbones.compiling import compile_student
from fastreid_clip3d.modeling.weights import apply_weights, fitting_weights
from fastreid_clip3d.teacher.labels import choose_phrases, phrase_scores
from tests.references import probe_distill
from tests.standins import random_batch, small_config, tiny_teacher_folder

ALL_LOSSES = ("CrossEntropyLoss", "OTLoss", "GlobalDistillLoss", "BodyShapeLoss")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_teacher_folder(tmp_path_factory.mktemp("teacher"))


def build(cfg, seed: int = 0):
    torch.manual_seed(seed)
    return build_model(cfg).train()


def losses_of(model, batch) -> dict[str, torch.Tensor]:
    with EventStorage():
        return model(copy.deepcopy(batch))


def test_losses_come_back_by_name_with_their_scales(teacher: str) -> None:
    batch = random_batch()
    cfg = small_config(teacher, ALL_LOSSES)
    model = build(cfg)
    losses = losses_of(model, batch)
    assert set(losses) == {"loss_cls", "loss_ot", "loss_global", "loss_ot_synthetic", "loss_body_shape"}
    for name, key in (("loss_ot", "ot"), ("loss_global", "global"), ("loss_body_shape", "body_shape")):
        doubled = build(cfg)
        doubled.scales[key] *= 2
        torch.testing.assert_close(losses_of(doubled, batch)[name], 2 * losses[name])


def test_losses_are_those_of_the_paper_computed_step_by_step(teacher: str) -> None:
    """Every term again from the model's parts, image by image and vertex by vertex."""
    batch = random_batch()
    model = build(small_config(teacher, ALL_LOSSES))
    losses = losses_of(model, batch)
    frozen = model.guidance.teacher

    # The first forward has moved the running statistics only; batch statistics give the same maps again.
    with torch.no_grad():
        both = torch.cat([batch["images"], batch["synthetic_images"]])
        maps = model.backbone((both - model.pixel_mean) / model.pixel_std)
        f_id = model.heads.pool_layer(maps)[:, :, 0, 0]
        g = frozen.encode_images(batch["teacher_images"])
        table = model.ot_loss.projection(frozen.phrase_table)
        choices = torch.cat([choose_phrases(phrase_scores(g, frozen.phrase_table)), batch["synthetic_phrase_choices"]])
        transport = []
        for image in range(len(both)):
            patches = maps[image].flatten(1).T
            words = torch.stack([table[2 * m + int(choices[image, m])] for m in range(16)])
            cost = 1 - F.cosine_similarity(patches[:, None], words[None], dim=-1)
            kernel = torch.exp(-cost)
            u = (1 / len(patches)) / kernel.sum(1)
            v = (1 / 16) / (kernel.T @ u)
            transport.append((u[:, None] * kernel * v[None] * cost).sum())
        transport = torch.stack(transport)
        torch.testing.assert_close(losses["loss_ot"], 0.3 * transport[:6].mean(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(losses["loss_ot_synthetic"], 0.3 * transport[6:].mean(), rtol=1e-4, atol=1e-6)

        projected = model.global_distill_loss.projection(g)
        torch.testing.assert_close(losses["loss_global"], 0.5 * F.mse_loss(projected, f_id[:6]), rtol=1e-4, atol=1e-6)

        neutral = load_body_model("", "neutral")
        gendered = [load_body_model("", gender) for gender in ("female", "male")]
        distances = []
        for image in range(4):
            predicted = neutral.shape(model.body_shape_loss.regressor(f_id[6 + image : 7 + image]))[0]
            body = gendered[int(batch["synthetic_gender"][image])]
            true = body.shape(batch["synthetic_betas"][image : image + 1])[0]
            distances.append((predicted - true).square().sum())
        expected = 0.3 * torch.stack(distances).mean()
        torch.testing.assert_close(losses["loss_body_shape"], expected, rtol=1e-3, atol=1e-5)


def test_a_loss_left_out_builds_nothing() -> None:
    model = build(small_config(losses=("CrossEntropyLoss", "TripletLoss")))
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"backbone", "heads"}
    assert model.guidance is None and not hasattr(model, "phrase_table")
    assert set(losses_of(model, random_batch())) == {"loss_cls", "loss_triplet"}


def test_without_our_losses_it_is_the_baseline_step_for_step() -> None:
    cfg = small_config(losses=("CrossEntropyLoss", "TripletLoss"))
    ours = build(cfg)
    cfg.MODEL.META_ARCHITECTURE = "Baseline"
    baseline = build(cfg)
    histories = []
    for model in (ours, baseline):
        optimizer, _ = build_optimizer(cfg, model)
        torch.manual_seed(1)
        history = []
        for _ in range(3):
            batch = random_batch()
            del batch["synthetic_images"]
            losses = losses_of(model, batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            history.append({name: loss.item() for name, loss in losses.items()})
        histories.append(history)
    assert histories[0] == histories[1]
    for (name, mine), (_, theirs) in zip(ours.state_dict().items(), baseline.state_dict().items()):
        assert torch.equal(mine, theirs), name


def test_teacher_stays_frozen_and_out_of_the_model(teacher: str) -> None:
    cfg = small_config(teacher, ALL_LOSSES)
    model = build(cfg)
    frozen = model.guidance.teacher
    before = [parameter.clone() for parameter in frozen.parameters()]
    optimizer, _ = build_optimizer(cfg, model)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        sum(losses_of(model, random_batch()).values()).backward()
        optimizer.step()
    assert not frozen.training
    assert all(torch.equal(old, new) for old, new in zip(before, frozen.parameters()))
    assert all(parameter.grad is None for parameter in frozen.parameters())
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not trained & {id(parameter) for parameter in frozen.parameters()}
    assert not any("teacher" in key or "guidance" in key for key in model.state_dict())
    aligned = 4  # numbers: compat/optimizer.py begins each parameter at a multiple of 16 bytes
    own = sum(-(-value.numel() // aligned) * aligned for value in model.parameters() if value.requires_grad)
    assert own == sum(group["params"][0].numel() for group in optimizer.param_groups)


def test_a_checkpoint_brings_its_phrases_and_training_keeps_those_of_its_own_teacher(
    teacher: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = build(small_config(teacher, ALL_LOSSES))
    saved = {key: value.clone() for key, value in model.state_dict().items()}
    own = model.phrase_table.clone()
    torch.testing.assert_close(saved["phrase_table"], model.guidance.phrase_table)
    model.load_state_dict(saved)
    assert "another teacher" not in caplog.text
    saved["phrase_table"] = saved["phrase_table"] + 1
    model.load_state_dict(saved)
    assert "another teacher" in caplog.text
    assert torch.equal(model.phrase_table, own)


def test_every_part_of_the_model_is_trained(teacher: str) -> None:
    """Also what data-parallel training needs: no parameter is left without a gradient."""
    model = build(small_config(teacher, ALL_LOSSES))
    sum(losses_of(model, random_batch()).values()).backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []


def test_checkpoint_serves_a_model_without_teacher_and_bodies(teacher: str) -> None:
    trained = build(small_config(teacher, ALL_LOSSES)).eval()
    cfg = small_config("no such teacher")
    student = build(cfg, seed=3).eval()
    result = student.load_state_dict(trained.state_dict(), strict=False)
    assert result.missing_keys == []
    images = 255 * torch.rand(3, 3, 64, 32)
    with torch.no_grad():
        features = student({"images": images.clone()})
        assert torch.equal(features, trained({"images": images.clone()}))
    assert features.shape == (3, 48)


def test_separate_statistics_keep_synthetic_images_out_of_the_running_ones(teacher: str) -> None:
    cfg = small_config(teacher, ALL_LOSSES)
    cfg.MODEL.SYNTHETIC_STATISTICS = "separate"
    separate, batch = build(cfg), random_batch()
    losses_of(separate, batch)
    real_only = build(small_config(losses=("CrossEntropyLoss",)))
    losses_of(real_only, batch)
    shared = build(small_config(teacher, ALL_LOSSES))
    losses_of(shared, batch)
    mean = "bn1.running_mean"
    assert torch.allclose(separate.backbone.state_dict()[mean], real_only.backbone.state_dict()[mean])
    assert not torch.allclose(shared.backbone.state_dict()[mean], real_only.backbone.state_dict()[mean])
    assert separate.backbone.bn1.momentum == shared.backbone.bn1.momentum != 0


def test_scale_zero_costs_nothing(teacher: str) -> None:
    cfg = small_config(teacher, ("CrossEntropyLoss", "OTLoss"))
    cfg.MODEL.LOSSES.OT.SCALE = 0.0
    batch = random_batch()
    del batch["teacher_images"]  # the teacher is not asked
    assert set(losses_of(build(cfg), batch)) == {"loss_cls", "loss_ot_synthetic"}
    cfg.MODEL.LOSSES.OT.SCALE, cfg.MODEL.LOSSES.OT.SYNTHETIC_SCALE = 0.3, 0.0
    batch = random_batch()
    model = build(cfg)
    assert set(losses_of(model, batch)) == {"loss_cls", "loss_ot"}
    assert not model._uses_synthetic_half


def test_clothes_adversarial_loss_waits_for_its_epoch() -> None:
    cfg = small_config(losses=("CrossEntropyLoss", "ClothesAdversarialLoss"))
    cfg.MODEL.LOSSES.CLOTHES_ADVERSARIAL.CLOTHES_PERSONS = [0, 0, 1, 1, 2]
    cfg.MODEL.LOSSES.CLOTHES_ADVERSARIAL.START_EPOCH = 3
    model, batch = build(cfg), random_batch()
    with EventStorage() as storage:
        storage.epoch = 2
        early = model(copy.deepcopy(batch))
        storage.epoch = 3
        late = model(copy.deepcopy(batch))
    assert early["loss_cal"] == 0 and late["loss_cal"] > 0
    assert early["loss_clothes"] > 0


def test_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(ClearError, match="'OTLos'.*Did you mean OTLoss"):
        build(small_config(losses=("CrossEntropyLoss", "OTLos")))


def test_residual_head_starts_from_the_pooled_features() -> None:
    cfg = small_config()
    cfg.MODEL.HEADS.MLP.OUT_DIM, cfg.MODEL.HEADS.MLP.RESIDUAL = 0, True
    model = build(cfg)
    feature_map = torch.rand(2, 512, 4, 2)
    torch.testing.assert_close(model.global_features(feature_map), feature_map.mean((2, 3)))
    cfg.MODEL.HEADS.MLP.OUT_DIM = 48
    with pytest.raises(ValueError, match="RESIDUAL needs OUT_DIM"):
        build(cfg)


@pytest.mark.parametrize("neck_feat", ["before", "after"])
@pytest.mark.parametrize("statistics", ["shared", "separate"])
def test_the_necks_running_statistics_are_of_the_real_half_alone(teacher: str, statistics: str, neck_feat: str) -> None:
    """L_3D reads the neck's output, which normalises each half by itself: the synthetic half must not count."""
    cfg = small_config(teacher, ALL_LOSSES)
    cfg.MODEL.HEADS.NECK_FEAT, cfg.MODEL.SYNTHETIC_STATISTICS = neck_feat, statistics
    cfg.MODEL.LOSSES.BODY_SHAPE.FEATURE = "after"
    model, batch = build(cfg), random_batch()
    with torch.no_grad():
        alone = build(cfg)
        seen = [batch["images"], batch["synthetic_images"]][: 2 if statistics == "shared" else 1]
        maps = alone.backbone((torch.cat(seen) - alone.pixel_mean) / alone.pixel_std)[: len(batch["images"])]
        f_id = alone.heads.pool_layer(maps)[:, :, 0, 0]
        neck = alone.heads.bottleneck[0]
        expected = (1 - neck.momentum) * neck.running_mean + neck.momentum * f_id.mean(0)
    losses_of(model, batch)
    torch.testing.assert_close(model.heads.bottleneck[0].running_mean, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("neck_feat", ["before", "after"])
@pytest.mark.parametrize("side", ["", "before", "after"])
def test_l_global_and_l_3d_see_the_side_of_the_neck_that_is_asked_for(teacher: str, neck_feat: str, side: str) -> None:
    """Every step by hand; the neck has learned a scale, so that its two sides differ in more than statistics."""
    cfg = small_config(teacher, ALL_LOSSES)
    cfg.MODEL.HEADS.NECK_FEAT, cfg.MODEL.SYNTHETIC_STATISTICS = neck_feat, "separate"
    cfg.MODEL.LOSSES.GLOBAL_DISTILL.FEATURE = cfg.MODEL.LOSSES.BODY_SHAPE.FEATURE = side
    model, batch = build(cfg), random_batch()
    neck = model.heads.bottleneck[0]
    torch.nn.init.uniform_(neck.weight, 0.5, 2.0)
    model.eval()
    g = model.guidance.teacher.encode_images(batch["teacher_images"])
    model.train()
    losses = losses_of(model, batch)
    running = neck.running_mean.clone()

    def f_id(images: torch.Tensor) -> torch.Tensor:
        features = model.heads.pool_layer(model.backbone((images - model.pixel_mean) / model.pixel_std))[:, :, 0, 0]
        if (side or neck_feat) == "before":
            return features
        scaled = (features - features.mean(0)) / (features.var(0, unbiased=False) + neck.eps).sqrt()
        return scaled * neck.weight + neck.bias

    distance = F.mse_loss(model.global_distill_loss.projection(g), f_id(batch["images"]))
    torch.testing.assert_close(losses["loss_global"], 0.5 * distance, rtol=1e-4, atol=1e-6)
    bodies = model.body_shape_loss
    distance = bodies(f_id(batch["synthetic_images"]), batch["synthetic_betas"], batch["synthetic_gender"])
    torch.testing.assert_close(losses["loss_body_shape"], 0.3 * distance, rtol=1e-4, atol=1e-6)
    with torch.no_grad():  # the neck's running mean has counted the real half once, whatever the losses see
        real = model.backbone((batch["images"] - model.pixel_mean) / model.pixel_std)
        once = neck.momentum * model.heads.pool_layer(real)[:, :, 0, 0].mean(0)
    torch.testing.assert_close(running, once, rtol=1e-4, atol=1e-6)


def with_probe(teacher: str, losses: tuple[str, ...] = ALL_LOSSES):
    cfg = small_config(teacher, losses)
    cfg.MODEL.LOSSES.GLOBAL_DISTILL.REDUCTION, cfg.MODEL.LOSSES.GLOBAL_DISTILL.HIDDEN_DIM = "kl", 0
    cfg.MODEL.LOSSES.GLOBAL_DISTILL.TEMPERATURE = 3.0
    return cfg


@pytest.mark.parametrize("classifier, scale", [("Linear", 1), ("CircleSoftmax", 16)])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_class_logits_follow_the_probe_whatever_the_classifier(
    teacher: str, classifier: str, scale: int, epsilon: float
) -> None:
    """Logits of the real half by hand: without margin, without smoothing, whatever cross-entropy uses."""
    cfg = with_probe(teacher)
    cfg.MODEL.HEADS.CLS_LAYER, cfg.MODEL.HEADS.SCALE, cfg.MODEL.HEADS.MARGIN = classifier, scale, 0.25
    cfg.MODEL.LOSSES.CE.EPSILON, cfg.MODEL.SYNTHETIC_STATISTICS = epsilon, "separate"
    model, batch = build(cfg), random_batch()
    torch.nn.init.normal_(model.heads.weight)
    losses = losses_of(model, batch)
    assert set(losses) == {"loss_cls", "loss_ot", "loss_global", "loss_probe", "loss_ot_synthetic", "loss_body_shape"}
    with torch.no_grad():
        f_id = model.heads.pool_layer(model.backbone((batch["images"] - model.pixel_mean) / model.pixel_std))
        searched, weight = model.heads.bottleneck(f_id)[..., 0, 0], model.heads.weight
        if classifier != "Linear":
            searched, weight = F.normalize(searched), F.normalize(weight)
        student = scale * searched @ weight.T
    g = model.guidance.teacher.encode_images(batch["teacher_images"])
    probe = model.global_distill_loss.probe
    taught = probe_distill.probe_logits(g.tolist(), probe.weight.tolist(), probe.bias.tolist())
    expected = 0.5 * probe_distill.divergence(student.tolist(), taught, 3.0)
    assert losses["loss_global"].item() == pytest.approx(expected, rel=1e-3)
    expected = probe_distill.cross_entropy(taught, batch["targets"].tolist())
    assert losses["loss_probe"].item() == pytest.approx(expected, rel=1e-4)


def test_the_probe_is_trained_saved_and_resumed_and_search_does_without_it(teacher: str) -> None:
    cfg = with_probe(teacher)
    model = build(cfg)
    optimizer, _ = build_optimizer(cfg, model)
    before = model.global_distill_loss.probe.weight.clone()
    sum(losses_of(model, random_batch()).values()).backward()
    assert [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None] == []
    optimizer.step()
    assert not torch.equal(before, model.global_distill_loss.probe.weight)
    saved = model.state_dict()
    resumed = build(cfg, seed=1)
    apply_weights(resumed, saved, "resume", "run")
    assert torch.equal(resumed.global_distill_loss.probe.weight, model.global_distill_loss.probe.weight)
    student = build(small_config("no such teacher"), seed=2)
    assert fitting_weights(saved, student, "inference", "run", "student").initial == []
    cfg.MODEL.HEADS.NUM_CLASSES = 9  # another training begins with this student and other people
    initial = fitting_weights(saved, build(cfg), "start", "run", "student").initial
    assert initial == ["heads.weight", "global_distill_loss.probe.weight", "global_distill_loss.probe.bias"]


def test_the_width_of_f_id_is_that_of_its_side_of_the_neck(teacher: str) -> None:
    cfg = small_config(teacher, ALL_LOSSES)
    cfg.MODEL.HEADS.EMBEDDING_DIM = 20
    cfg.MODEL.LOSSES.GLOBAL_DISTILL.FEATURE, cfg.MODEL.LOSSES.BODY_SHAPE.FEATURE = "after", "before"
    model = build(cfg)
    assert model.global_distill_loss.projection[2].out_features == 20
    assert model.body_shape_loss.regressor[0].in_features == 48
    sum(losses_of(model, random_batch()).values()).backward()


@pytest.mark.parametrize(
    "backbone, depth, width", [("build_timm_backbone", "test_vit", 64), ("build_vit_backbone", "small", 768)]
)
def test_compile_reaches_students_whose_patches_are_read_from_parts(backbone: str, depth: str, width: int) -> None:
    cfg = small_config()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM = backbone, depth, width
    student = build(cfg).backbone.eval()
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list) -> object:
        graphs.append(graph)
        return graph.forward

    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        expected = student_maps(student, images)
        original = torch.compile
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "compile", lambda *given, **named: original(*given, **{**named, "backend": count}))
            compile_student(student)
            found = student_maps(student, images)
    assert graphs
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other)
