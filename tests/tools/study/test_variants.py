"""Rows are what their titles say: they load, differ where they should and nowhere else, see the same real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.engine.trainer import CLIP3DTrainer, check_training_config
from fastreid_clip3d.errors import ClearError
from tests.tools.study.small_benchmark import tiny_options
from tools.study import paper, variants
from tools.study.runner import Run
from tools.study.synthcc import SynthCCStudy

LOSSES = "MODEL.LOSSES.NAME"
SYNTHETIC = "DATALOADER.SYNTHETIC_PER_BATCH"
INSTANCES = "DATALOADER.NUM_INSTANCE"


def study_of(rows: list[variants.Variant], folder: Path, data: Path, *options: str) -> SynthCCStudy:
    return SynthCCStudy("10", "a title", rows, rows, folder, data, seeds=(0,), options=options)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Run]:
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    return {run.variant.name: run for run in study_of(variants.table_10(), tmp_path, tmp_path).runs()}


def differences(run: Run, other: Run) -> dict[str, str]:
    """What `run` sets otherwise than `other`."""
    own, theirs = run.config(), other.config()
    return {key: own[key] for key in own if own[key] != theirs[key]}


def losses_of(run: Run) -> set[str]:
    return set(load_config(run.config_file, run.all_options).MODEL.LOSSES.NAME)


OURS = {"OTLoss", "GlobalDistillLoss", "BodyShapeLoss"}
ALL = set(load_config(str(variants.REPOSITORY / variants.METHOD)).MODEL.LOSSES.NAME)


@pytest.mark.parametrize(
    ("name", "losses", "keys"),
    [
        ("without_synthetic", ALL - {"BodyShapeLoss"}, {LOSSES, SYNTHETIC}),
        ("without_ot", ALL - {"OTLoss"}, {LOSSES}),
        ("without_global", ALL - {"GlobalDistillLoss"}, {LOSSES}),
        ("without_3d", ALL - {"BodyShapeLoss"}, {LOSSES}),
        ("without_all", ALL - OURS, {LOSSES, SYNTHETIC}),
        ("full_triplet", ALL | {"TripletLoss"}, {LOSSES, INSTANCES}),
        ("without_all_triplet", ALL - OURS | {"TripletLoss"}, {LOSSES, SYNTHETIC, INSTANCES}),
        ("scene_bodies", ALL, {"DATASETS.SYNTHETIC"}),
        (
            "cal",
            {"CrossEntropyLoss", "ClothesAdversarialLoss"},
            {LOSSES, SYNTHETIC, "MODEL.LOSSES.CLOTHES_ADVERSARIAL.START_EPOCH"},
        ),
        (
            "true_shape_alone",
            {"CrossEntropyLoss", "GlobalDistillLoss"},
            {LOSSES, SYNTHETIC, "MODEL.TEACHER.MODE"},
        ),
        ("true_labels", ALL, {"MODEL.TEACHER.MODE"}),
        ("true_shape", ALL, {"MODEL.TEACHER.MODE"}),
    ],
)
def test_an_ablation_leaves_out_what_it_names_and_nothing_else(
    runs: dict[str, Run], name: str, losses: set[str], keys: set[str]
) -> None:
    assert losses_of(runs["full"]) == ALL >= OURS | {"CrossEntropyLoss"} and losses_of(runs[name]) == losses
    changed = differences(runs[name], runs["full"])
    assert set(changed) == (keys - {LOSSES} if losses == ALL else keys)
    assert changed.get(SYNTHETIC, "0") == "0"


def test_outside_baselines_share_student_images_and_schedule_with_the_method(runs: dict[str, Run]) -> None:
    augmentation = ("INPUT.SIZE", "INPUT.CJ", "INPUT.REA", "INPUT.FLIP", "INPUT.PADDING")
    shared = ("MODEL.BACKBONE.", "SOLVER.", "DATASETS.", *augmentation)
    for name in ("bagtricks", "agw", "sbs"):
        changed = differences(runs[name], runs["full"])
        assert not [key for key in changed if key.startswith(shared)], name
        assert {key for key in changed if key.startswith("DATALOADER")} <= {SYNTHETIC, INSTANCES}, name  # triplets
        assert losses_of(runs[name]) == {"CrossEntropyLoss", "TripletLoss"}
    assert differences(runs["agw"], runs["bagtricks"]) == {
        "MODEL.HEADS.POOL_LAYER": "'GeneralizedMeanPooling'",
        "MODEL.LOSSES.TRI.MARGIN": "0.0",
        "MODEL.LOSSES.TRI.HARD_MINING": "False",
    }
    assert differences(runs["sbs"], runs["bagtricks"])["MODEL.HEADS.CLS_LAYER"] == "'CircleSoftmax'"


def test_every_row_of_every_table_is_a_config_that_training_accepts(tmp_path: Path) -> None:
    rows = [*variants.table_10(), *variants.table_11(["embedded", "ViT-B-32:openai"]), *variants.table_cross()]
    runs = study_of(rows, tmp_path, tmp_path).runs()
    assert len(runs) == len(rows) > 20
    for run in runs:
        check_training_config(load_config(run.config_file, run.all_options))  # raises ClearError


def test_rows_with_the_same_sampling_see_the_same_real_images_in_the_same_order(
    benchmark_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = benchmark_folder
    options = tiny_options(data)
    rows = [row for row in variants.table_10() if not row.truth and variants.SCENE_BODIES not in row.options]
    monkeypatch.setenv("FASTREID_DATASETS", str(data))
    seen = {}
    for run in study_of(rows, tmp_path, data, *options).runs():
        cfg = load_config(run.config_file, run.all_options)
        torch.manual_seed(0)
        np.random.seed(0)
        trainer = object.__new__(CLIP3DTrainer)  # without a model
        trainer._seed = 0
        loader = trainer.build_train_loader(cfg)
        batches = iter(loader)
        seen[run.variant.name] = [next(batches)["img_paths"] for _ in range(3)]
        assert len(loader.dataset) == 32
    assert len(seen["full"][0]) == 16 and seen["full"][0] != seen["full"][1]
    for name, batches in seen.items():  # the options give all rows the same number of images per person
        assert batches == seen["full"], name


def test_seeds_come_one_after_the_other(tmp_path: Path) -> None:
    rows = variants.chosen(variants.table_10(), ["full", "agw"])
    study = SynthCCStudy("10", "a title", rows, rows, tmp_path / "study", tmp_path, seeds=(0, 4), split="val")
    order = [(run.variant.name, run.seed) for run in study.runs()]
    assert order == [("full", 0), ("agw", 0), ("full", 4), ("agw", 4)]
    last = study.runs()[-1]
    assert last.folder == tmp_path / "study" / "table10" / "agw" / "seed4" and last.tests == ("SynthCCTinyVal",)
    assert load_config(last.config_file, last.all_options).SEED == 4
    assert last.config() == study.runs()[1].config() and last.settings() == study.runs()[1].settings()


def test_a_row_shared_by_two_tables_has_one_folder(tmp_path: Path) -> None:
    ten, eleven, cross = variants.table_10(), variants.table_11(["embedded"]), variants.table_cross()
    homes = [
        study.home(next(row for row in rows if row.name == name))
        for study, rows, name in (
            (SynthCCStudy("10", "", ten, ten, tmp_path, tmp_path), ten, "full"),
            (SynthCCStudy("11", "", eleven, eleven, tmp_path, tmp_path), eleven, "embedded"),
            (SynthCCStudy("cross", "", cross, cross, tmp_path, tmp_path), cross, "natural_full"),
        )
    ]
    assert homes == [tmp_path / "table10" / "full"] * 3


def test_an_unknown_row_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ClearError, match="without_ot"):
        variants.chosen(variants.table_10(), ["without_oto"])
    usual = [row.name for row in variants.chosen(variants.table_10(), [])]
    assert not {"true_labels", "true_shape"} & set(usual) and len(usual) == 9


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        ("embedded", ("embedded", "")),
        ("ViT-B-32:openai", ("ViT-B-32", "openai")),
        ("ViT-B-32:/weights/a b.pt", ("ViT-B-32", "/weights/a b.pt")),
        ("local-dir:/some/where", ("local-dir:/some/where", "")),
    ],
)
def test_teachers_by_name(teacher: str, expected: tuple[str, str]) -> None:
    assert variants.split_teacher(teacher) == expected
    row = variants.table_11([teacher])[0]
    keys = load_config(str(variants.REPOSITORY / row.config), row.options).MODEL.TEACHER
    assert expected == (keys.NAME, keys.PRETRAINED)
    assert "/" not in row.name and ":" not in row.name


def test_the_papers_tables_agree_where_they_repeat_each_other() -> None:
    tables = paper.TABLES
    assert tables["10"]["full"] == tables["2"]["CLIP3DReID"]
    assert tables["11"]["ViT-L-14_openai"][paper.CELEB] == tables["2"]["CLIP3DReID"][paper.CELEB]
    ablation = {row.name for row in variants.synthcc_ablation()}
    assert ablation == set(tables["10"])
    teachers = ["ViT-B-32:openai", "ViT-B-16:openai", "ViT-L-14:openai"]
    assert {row.name for row in variants.table_11(teachers)} >= set(tables["11"])
