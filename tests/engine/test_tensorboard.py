"""What TensorBoard shows: shares computed by hand, rows of images, the last scores; logging changes no weight."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from fastreid.engine import hooks
from fastreid.utils.events import EventStorage
from PIL import Image
from torch import nn

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.engine import tensorboard
from fastreid_clip3d.engine.trainer import CLIP3DTrainer
from fastreid_clip3d.evaluation.protocols import GENERAL
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate
from tests.standins import random_batch, small_config, tiny_teacher_folder, write_bodies

LOSSES = ("CrossEntropyLoss", "OTLoss", "GlobalDistillLoss", "BodyShapeLoss")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people in two outfits as a CSV, four synthetic bodies, a tiny teacher."""
    root = tmp_path_factory.mktemp("datasets")
    lines = ["path,pid,camid,clothes,split"]
    for person in range(4):
        for outfit in range(2):
            for split in ("train", "query", "gallery"):
                name = f"{split}_{person}_{outfit}.png"
                Image.new("RGB", (16, 32), (60 * person, 120 * outfit, 90)).save(root / name)
                lines.append(f"{name},{person},{5 if split == 'query' else 0},{outfit},{split}")
    (root / "dataset.csv").write_text("\n".join(lines) + "\n")
    write_bodies(root / "SyntheticBodies", 4)
    tiny_teacher_folder(root / "teacher")
    return root


def config(data: Path, output: Path, period: int) -> CfgNode:
    options = {
        "MODEL.DEVICE": "cpu", "MODEL.META_ARCHITECTURE": "CLIP3DReID", "MODEL.BACKBONE.PRETRAIN": "False",
        "MODEL.BACKBONE.DEPTH": "18x", "MODEL.BACKBONE.FEAT_DIM": "512", "MODEL.HEADS.NAME": "MLPHead",
        "MODEL.HEADS.WITH_BNNECK": "True", "MODEL.LOSSES.NAME": str(LOSSES),
        "MODEL.TEACHER.NAME": f"local-dir:{data / 'teacher'}",
        "MODEL.TEACHER.PRETRAINED": "''", "MODEL.TEACHER.MODE": "online", "DATASETS.NAMES": "('CSVDataset',)",
        "DATASETS.TESTS": "('CSVDataset',)", "DATALOADER.NUM_WORKERS": "0", "DATALOADER.NUM_INSTANCE": "2",
        "DATALOADER.SAMPLER_TRAIN": "MixedIdentitySampler", "DATALOADER.SYNTHETIC_PER_BATCH": "4",
        "INPUT.SIZE_TRAIN": "[64, 32]", "INPUT.SIZE_TEST": "[64, 32]",
        "SOLVER.IMS_PER_BATCH": "4", "SOLVER.MAX_EPOCH": "2",
        "SOLVER.WARMUP_ITERS": "0",
        "SOLVER.AMP.ENABLED": "False", "TEST.PRECISE_BN.ENABLED": "False", "TEST.EVAL_PERIOD": "0", "WRITE_PERIOD": "1",
        "OUTPUT_DIR": str(output), "SEED": "0",
    }  # fmt: skip
    cfg = load_config("", [text for pair in options.items() for text in pair])
    if "TENSORBOARD" not in cfg:
        cfg.TENSORBOARD = CfgNode()
    cfg.TENSORBOARD.GRADIENT_SHARES_PERIOD = period
    return cfg


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, CLIP3DTrainer]]:
    """The same four steps without shares (0) and with shares every second step (2)."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(data))
        for period in (0, 2):
            output = tmp_path_factory.mktemp(f"run{period}")
            torch.manual_seed(0)
            np.random.seed(0)
            trainer = CLIP3DTrainer(config(data, output, period))
            trainer.train()
            found[period] = (output, trainer)
    return found


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def losses_by_iteration(folder: Path) -> dict[int, dict[str, float]]:
    return {
        row["iteration"]: {name: value for name, value in row.items() if name.startswith(("loss_", "total_loss"))}
        for row in rows(folder)
        if "total_loss" in row
    }


def test_shares_change_no_step_of_the_training(runs: dict) -> None:
    (plain, without), (measured, with_shares) = runs[0], runs[2]
    assert len(losses_by_iteration(plain)) == 4
    assert set(losses_by_iteration(plain)[0]) == {
        "total_loss", "loss_cls", "loss_ot", "loss_global", "loss_ot_synthetic", "loss_body_shape",
    }  # fmt: skip
    assert losses_by_iteration(plain) == losses_by_iteration(measured)
    for name, tensor in without.model.state_dict().items():
        assert torch.equal(tensor, with_shares.model.state_dict()[name]), name


def test_shares_are_written_at_their_iterations_and_sum_to_one(runs: dict) -> None:
    assert not any(name.startswith("gradient_share/") for row in rows(runs[0][0]) for name in row)
    shares = {
        row["iteration"]: {name: value for name, value in row.items() if name.startswith("gradient_share/")}
        for row in rows(runs[2][0])
    }
    assert [iteration for iteration, found in shares.items() if found] == [1, 3]
    for iteration in (1, 3):
        assert set(shares[iteration]) == {
            f"gradient_share/{name}" for name in ("cls", "ot", "global", "ot_synthetic", "body_shape")
        }
        assert sum(shares[iteration].values()) == pytest.approx(1)
        assert all(share > 0 for share in shares[iteration].values())
    assert "student_maps" not in vars(runs[2][1].model)


def test_throughput_counts_the_real_images_of_a_step(runs: dict) -> None:
    timed = [row for row in rows(runs[0][0]) if "images_per_second" in row]
    # fast-reid's timer starts at the third step; the curve is a median of what there is, the first row of one value
    assert [row["iteration"] for row in timed] == [2, 3]
    assert timed[0]["images_per_second"] == pytest.approx(4 / timed[0]["time"])


def test_the_last_evaluation_is_written_with_a_row_of_images(runs: dict) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    last = rows(runs[0][0])[-1]
    assert last["iteration"] == 4 and 0 <= last["mAP"] <= 100 and "CSVDataset/general/mAP" in last
    events = EventAccumulator(str(runs[0][0]), {"images": 0, "scalars": 0}).Reload()
    (tag,) = events.Tags()["images"]
    assert tag == "CSVDataset/general"
    (picture,) = events.Images(tag)
    assert picture.step == 4 and picture.height > tensorboard.SHOWN_QUERIES * 96
    assert {"loss_cls", "loss_ot", "images_per_second", "CSVDataset/general/mAP"} <= set(events.Tags()["scalars"])


def test_shares_by_hand() -> None:
    """loss_a = 3 x + 4 y has gradient norm 5, loss_b = 15 x norm 15, a constant none."""
    maps = torch.tensor([1.0, 2.0], requires_grad=True) * 1.0
    losses = {
        "loss_a": (maps * torch.tensor([3.0, 4.0])).sum(), "loss_b": 15 * maps[0], "loss_c": torch.tensor(7.0),
    }  # fmt: skip
    for scale in (1.0, 1024.0):
        assert tensorboard.gradient_shares(losses, [maps], scale) == pytest.approx(
            {"loss_a": 0.25, "loss_b": 0.75, "loss_c": 0.0}
        )
    broken = {"loss_a": (maps * math.inf).sum(), "loss_b": maps.sum()}
    assert tensorboard.gradient_shares(broken, [maps]) == {}


def test_both_halves_count(tmp_path: Path) -> None:
    """The share of L_3D comes from the synthetic half alone, that of L_global from the real half alone."""
    torch.manual_seed(0)
    cfg = small_config(
        tiny_teacher_folder(tmp_path / "teacher"), ("GlobalDistillLoss", "BodyShapeLoss", "CrossEntropyLoss")
    )
    for statistics in ("shared", "separate"):
        cfg.MODEL.SYNTHETIC_STATISTICS = statistics
        model, maps = CLIP3DTrainer.build_model(cfg), []
        forget = tensorboard.collect_maps(model, maps)
        with EventStorage():
            losses = model(random_batch())
        halves = [[part for part in maps if len(part) == count] for count in (6, 4)]
        assert sum(map(len, halves)) == len(maps) and all(halves)
        real, synthetic = (tensorboard.gradient_shares(losses, half) for half in halves)
        assert real["loss_body_shape"] == 0 < synthetic["loss_body_shape"]
        assert synthetic["loss_global"] == 0 < real["loss_global"]
        forget()
        collected = len(maps)
        with EventStorage():
            model(random_batch())
        assert len(maps) == collected


def test_a_model_of_fastreid_is_measured_at_its_backbone() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Linear(2, 2)

        def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            features = self.backbone(batch)
            return {"loss_cls": features.sum(), "loss_triplet": 3 * features.sum()}

    model, written = Plain(), []
    hook = tensorboard.GradientShares(1)
    storage = SimpleNamespace(put_scalar=lambda name, value, **_: written.append((name, round(value, 6))))
    hook.trainer = SimpleNamespace(iter=0, model=model, storage=storage, grad_scaler=None)
    hook.before_step()
    losses = model(torch.ones(1, 2))
    sum(losses.values()).backward()  # the graph is still there
    hook.after_step()
    assert written == [("gradient_share/cls", 0.25), ("gradient_share/triplet", 0.75)]
    model(torch.ones(1, 2))
    assert len(written) == 2
    # A model in evaluation, as at the end of an epoch, is no training step.
    hook.before_step()
    model.eval()(torch.ones(1, 2))
    hook.after_step()
    assert len(written) == 2


def matches(tmp_path: Path, with_names: bool = True) -> tuple:
    generator = np.random.default_rng(0)
    sides = []
    for side, count in (("query", 6), ("gallery", 12)):
        names = []
        for place in range(count):
            names.append(str(tmp_path / f"{side}{place}.png"))
            Image.new("RGB", (8, 16), (place * 20, 0, 0)).save(names[-1])
        features = torch.from_numpy(generator.standard_normal((count, 4)).astype(np.float32))
        sides.append(
            LabelledFeatures(
                features,
                np.arange(count) % 6,
                np.full(count, int(side == "query")),
                None,
                tuple(names) if with_names else (),
            )
        )
    return *sides, evaluate(*sides, [GENERAL])


def test_rows_of_images_ask_the_same_queries_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery, results = matches(tmp_path)
    asked = []
    monkeypatch.setattr(
        "fastreid_clip3d.visualization.ranking.draw_ranking",
        lambda models, *_, **__: asked.append(models[0].query.names) or Image.new("RGB", (3, 2)),
    )
    with EventStorage() as storage:
        tensorboard.show_matches("Set", query, gallery, results)
        query.features.mul_(-1)  # a later model
        tensorboard.show_matches("Set", query, gallery, evaluate(query, gallery, [GENERAL]))
        assert [(name, picture.shape) for name, picture, _ in storage._vis_data] == [("Set/general", (3, 2, 3))] * 2
    assert asked[0] == asked[1] and len(set(asked[0])) == tensorboard.SHOWN_QUERIES
    tensorboard.show_matches("Set", query, gallery, results)  # no training: nothing is drawn
    assert len(asked) == 2


def test_a_missing_picture_ends_no_training(tmp_path: Path) -> None:
    query, nameless, results = matches(tmp_path, with_names=False)
    query, gallery, results = matches(tmp_path)
    Path(gallery.names[0]).unlink()
    with EventStorage() as storage:
        for side in (nameless, gallery):
            tensorboard.show_matches("Set", query, side, results)
        assert storage._vis_data == []


def test_ours_come_before_the_writers_and_after_the_timer(data: Path) -> None:
    cfg = config(data, data, 0)
    timer, writer = hooks.IterationTimer(), hooks.PeriodicWriter([])
    names = lambda chosen: [type(hook).__name__ for hook in tensorboard.with_measurements(chosen, cfg)]  # noqa: E731
    assert names([timer, writer]) == ["IterationTimer", "Throughput", "PeriodicWriter"]
    cfg.TENSORBOARD.GRADIENT_SHARES_PERIOD = 7
    assert names([timer, writer]) == ["IterationTimer", "Throughput", "GradientShares", "PeriodicWriter"]
    assert names([timer]) == ["IterationTimer", "Throughput", "GradientShares"]  # a process that writes nothing
