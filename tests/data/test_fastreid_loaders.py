"""fast-reid's own trainer and loaders with our keys: datasets by name, and errors a user can act on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.data import build_reid_test_loader, build_reid_train_loader
from fastreid.data.common import CommDataset
from fastreid.engine import DefaultTrainer
from PIL import Image

from fastreid_clip3d import add_clip3d_config
from fastreid_clip3d.data.datasets import DatasetNotFound, DatasetProblem
from fastreid_clip3d.errors import ClearError


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    """fast-reid's config for 6 people of a CSV file, two iterations of 4 x 2 images."""
    generator = np.random.default_rng(0)
    lines = ["path,pid,camid,split"]
    for person in range(6):
        for number in range(3):
            for split in ("train", "query", "gallery"):
                name = f"{split}_{person}_{number}.png"
                Image.fromarray(generator.integers(0, 255, (16, 8, 3), dtype=np.uint8)).save(tmp_path / name)
                pid, camera = person + (0 if split == "train" else 100), number + (5 if split == "query" else 0)
                lines.append(f"{name},{pid},{camera},{split}")
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
    cfg = get_cfg()
    add_clip3d_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM = "cpu", "18x", 512
    cfg.MODEL.LOSSES.NAME = ("CrossEntropyLoss",)
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [32, 16]
    cfg.DATASETS.CSV = (("PeopleOfACsv", str(tmp_path / "people.csv")),)
    cfg.DATASETS.NAMES = cfg.DATASETS.TESTS = ("PeopleOfACsv",)
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.NUM_INSTANCE, cfg.DATALOADER.NUM_WORKERS = "NaiveIdentitySampler", 2, 0
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.AMP.ENABLED = 8, 1, 0, False
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


@pytest.fixture(autouse=True)
def unregistered():
    """A name stays registered for the process; each test's file is another one."""
    from fastreid.data.datasets import DATASET_REGISTRY

    yield
    DATASET_REGISTRY._obj_map.pop("PeopleOfACsv", None)


def test_default_trainer_trains_and_tests_on_a_csv_of_the_config(cfg: CfgNode) -> None:
    trainer = DefaultTrainer(cfg)
    assert isinstance(trainer.data_loader.dataset, CommDataset) and trainer.data_loader.dataset.num_classes == 6
    assert trainer.iters_per_epoch == 18 // 8
    trainer.train()
    assert trainer.iter == 2
    loader, num_query = build_reid_test_loader(cfg, dataset_name="PeopleOfACsv")
    assert num_query == 18 and len(loader.dataset) == 36
    assert next(iter(loader))["targets"][0].item() == 100


def test_a_misspelt_dataset_lists_the_nearest(cfg: CfgNode) -> None:
    cfg.DATASETS.NAMES = ("PeopleOfACvs",)
    with pytest.raises(DatasetProblem, match="No dataset is called 'PeopleOfACvs'. Did you mean PeopleOfACsv"):
        build_reid_train_loader(cfg)
    with pytest.raises(DatasetProblem, match="Did you mean LTCC"):
        build_reid_test_loader(cfg, dataset_name="LTTC")
    cfg.DATASETS.NAMES, cfg.DATASETS.CSV = ("LTTC",), (("Unrelated", "a file that has moved away.csv"),)
    with pytest.raises(DatasetProblem, match="Did you mean LTCC.*Known: .*Unrelated"):
        build_reid_train_loader(cfg)
    cfg.DATASETS.NAMES = ()
    with pytest.raises(ClearError, match="DATASETS.NAMES names no dataset"):
        build_reid_train_loader(cfg)


@pytest.mark.filterwarnings("ignore:The current data structure is deprecated")
def test_a_dataset_that_is_not_there_is_a_clear_error(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastreid.data.build._root", str(tmp_path / "elsewhere"))
    for name in ("Market1501", "LTCC"):
        with pytest.raises(DatasetNotFound, match=f"{name}: .*elsewhere.*FASTREID_DATASETS"):
            build_reid_test_loader(cfg, dataset_name=name)
    cfg.DATASETS.CSV = (("PeopleOfACsv", str(tmp_path / "nowhere.csv")),)
    with pytest.raises(DatasetNotFound, match="'PeopleOfACsv': .*nowhere.csv is missing"):
        build_reid_train_loader(cfg)
    for malformed in ("people.csv", ("PeopleOfACsv", "people.csv"), (("PeopleOfACsv",),), (("PeopleOfACsv", 3),)):
        cfg.DATASETS.CSV = malformed
        with pytest.raises(ClearError, match="it must be pairs of a name and a file"):
            build_reid_train_loader(cfg)


def test_batches_and_samplers_that_cannot_work_are_refused_before_the_first_step(cfg: CfgNode) -> None:
    cfg.SOLVER.IMS_PER_BATCH = 14
    with pytest.raises(ClearError, match="18 images of 6 people, and NaiveIdentitySampler needs 7 people"):
        DefaultTrainer(cfg)
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    assert next(iter(build_reid_train_loader(cfg)))["images"].shape == (14, 3, 32, 16)
    cfg.SOLVER.IMS_PER_BATCH = 19
    with pytest.raises(ClearError, match="fewer images than one batch"):
        DefaultTrainer(cfg)
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.SAMPLER_TRAIN = 8, "MixedIdentitySampler"
    with pytest.raises(ClearError, match="engine.trainer.CLIP3DTrainer"):
        DefaultTrainer(cfg)


def test_what_a_caller_gives_is_left_alone(cfg: CfgNode) -> None:
    items = [("a", 0, 0), ("b", 1, 0)] * 4
    own = CommDataset(items, lambda image: image)
    sampler = torch.utils.data.SequentialSampler(own)
    cfg.DATASETS.NAMES = ("nobody",)
    assert build_reid_train_loader(cfg, train_set=own, sampler=sampler).dataset is own
    explicit = build_reid_train_loader(own, sampler=sampler, total_batch_size=2, num_workers=0)
    assert explicit.dataset is own and explicit.batch_sampler.batch_size == 2
    assert build_reid_test_loader(cfg, test_set=own, num_query=3)[1] == 3
