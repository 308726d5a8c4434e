"""Training runs end to end on a CPU: every yaml file, resuming, kills, and each error a user can cause."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fastreid_clip3d.cli import main, run_verb
from fastreid_clip3d.config_loading import inference_config, load_config
from fastreid_clip3d.engine.run import evaluate
from fastreid_clip3d.engine.trainer import CLIP3DTrainer
from fastreid_clip3d.errors import ClearError
from tests.conftest import REPOSITORY

CONFIGS = sorted(
    path
    for path in (REPOSITORY / "configs").rglob("*.yml")
    if not path.name.startswith("Base-") and path.parent.name != "students"  # those have a test of their own
)
SMALL_DEPTH = {"build_resnet_backbone": ("18x", 512), "build_resnest_backbone": ("50x", 2048)}


@pytest.fixture(autouse=True)
def datasets_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(data))
    monkeypatch.setattr("fastreid.data.build._root", str(data))  # fast-reid's loader reads the variable at its import


def small(path: str | Path, data: Path, output: Path, *options: str) -> list[str]:
    """Options that bring a config to this machine: stand-ins for what is licensed, two iterations, small images."""
    cfg = load_config(str(path)) if path else load_config("")
    depth, width = SMALL_DEPTH.get(cfg.MODEL.BACKBONE.NAME, (cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM))
    if cfg.MODEL.META_ARCHITECTURE == "MGN":  # takes bottleneck blocks
        depth, width = "50x", 2048
    size = "[96, 32]" if cfg.MODEL.META_ARCHITECTURE == "MGN" else "[64, 32]"  # MGN cuts the map into three stripes
    given = {
        "MODEL.DEVICE": "cpu",
        "MODEL.BACKBONE.PRETRAIN": "False",
        "MODEL.BACKBONE.DEPTH": depth,
        "MODEL.BACKBONE.FEAT_DIM": str(width),
        "MODEL.TEACHER.NAME": f"local-dir:{data / 'teacher'}",
        "MODEL.TEACHER.PRETRAINED": "''",
        "MODEL.TEACHER.MODE": "online",
        "DATASETS.NAMES": "('CSVDataset',)",
        "DATASETS.TESTS": "('CSVDataset',)",
        "DATALOADER.NUM_WORKERS": "0",
        "DATALOADER.NUM_INSTANCE": "2",
        "DATALOADER.SYNTHETIC_PER_BATCH": "4"
        if cfg.DATALOADER.SYNTHETIC_PER_BATCH and cfg.MODEL.META_ARCHITECTURE == "CLIP3DReID"
        else "0",
        "INPUT.SIZE_TRAIN": size,
        "INPUT.SIZE_TEST": size,
        "SOLVER.IMS_PER_BATCH": "16",
        "SOLVER.MAX_EPOCH": "1",
        "SOLVER.WARMUP_ITERS": "0",
        "SOLVER.WARMUP_EPOCHS": "0",
        "SOLVER.AMP.ENABLED": "False",
        "TEST.PRECISE_BN.ENABLED": "False",
        "OUTPUT_DIR": str(output),
        "SEED": "0",
    }
    given.update(zip(options[::2], options[1::2]))
    return [text for pair in given.items() for text in pair]


def train(options: list[str], path: str | Path = "", resume: bool = False) -> CLIP3DTrainer:
    cfg = load_config(str(path), options)
    cfg.freeze()
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    np.random.seed(0)
    trainer = CLIP3DTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.results = trainer.train()
    return trainer


def distinct_recipes() -> dict[str, list[Path]]:
    """The yaml files by what remains when dataset and output folder are those of this test; each recipe trains once."""
    by_recipe: dict[str, list[Path]] = {}
    for path in CONFIGS:
        recipe = load_config(str(path), small(path, Path("data"), Path("output"))).dump()
        by_recipe.setdefault(recipe, []).append(path)
    return {str(paths[0].relative_to(REPOSITORY / "configs")): paths for paths in by_recipe.values()}


@pytest.mark.parametrize("paths", distinct_recipes().values(), ids=distinct_recipes().keys())
def test_every_yaml_trains_two_iterations_and_is_evaluated(paths: list[Path], data: Path, tmp_path: Path) -> None:
    trainer = train(small(paths[0], data, tmp_path), paths[0])
    assert trainer.iter == 2
    assert 0 <= trainer.results["mAP"] <= 100 and "CSVDataset/general/mAP" in trainer.results
    assert (tmp_path / "model_final.pth").is_file()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert any(np.isfinite(line.get("total_loss", np.nan)) for line in lines)


def test_every_dataset_that_a_yaml_names_exists() -> None:
    from fastreid_clip3d.data.datasets import dataset_names

    for path in CONFIGS:
        cfg = load_config(str(path))
        assert set(cfg.DATASETS.NAMES) | set(cfg.DATASETS.TESTS) <= set(dataset_names()), path


CELEB = REPOSITORY / "configs" / "CLIP3D" / "celeb.yml"


def test_finished_run_resumed_is_only_evaluated(data: Path, tmp_path: Path) -> None:
    options = small(CELEB, data, tmp_path)
    first = train(options, CELEB)
    before = (tmp_path / "model_final.pth").stat().st_mtime_ns
    again = train(options, CELEB, resume=True)
    assert again.results["mAP"] == pytest.approx(first.results["mAP"])
    assert (tmp_path / "model_final.pth").stat().st_mtime_ns == before


def test_scores_of_an_evaluation_that_was_killed_are_written_by_the_resumed_run(data: Path, tmp_path: Path) -> None:
    """As after a kill in the last evaluation: model_final.pth is there, its scores are in no file yet."""
    options = small(CELEB, data, tmp_path)
    first = train(options, CELEB)
    metrics = tmp_path / "metrics.json"
    lines = [line for line in metrics.read_text().splitlines() if "mAP" not in line]
    metrics.write_text("\n".join(lines) + "\n")
    for events in tmp_path.glob("events.out.tfevents*"):
        events.unlink()
    for _ in range(2):
        train(options, CELEB, resume=True)
        scored = [json.loads(line) for line in metrics.read_text().splitlines() if "mAP" in line]
        assert [line["mAP"] for line in scored] == [pytest.approx(first.results["mAP"])]
        assert scored[0]["iteration"] == first.max_iter
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_checkpoint_is_evaluated_without_teacher_bodies_and_synthetic_data(data: Path, tmp_path: Path) -> None:
    trained = train(small(CELEB, data, tmp_path), CELEB)
    options = small(
        CELEB,
        data,
        tmp_path,
        "MODEL.TEACHER.NAME",
        "gone",
        "MODEL.BODY.PATH",
        "gone",
        "DATASETS.SYNTHETIC",
        "gone",
        "MODEL.WEIGHTS",
        str(tmp_path / "model_final.pth"),
    )
    results = evaluate(inference_config(load_config(str(CELEB), options)))
    assert results["mAP"] == pytest.approx(trained.results["mAP"], abs=1e-4)


def test_checkpoint_holds_neither_teacher_nor_body(data: Path, tmp_path: Path) -> None:
    train(small(CELEB, data, tmp_path), CELEB)
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=True)
    parts = {key.split(".")[0] for key in checkpoint["model"]}
    assert parts == {"backbone", "heads", "ot_loss", "global_distill_loss", "body_shape_loss", "phrase_table"}
    assert not any("gram" in key for key in checkpoint["model"])


@pytest.mark.parametrize("write_period", [1, 50])
def test_every_evaluation_is_in_the_metrics_file(data: Path, tmp_path: Path, write_period: int) -> None:
    options = small(
        CELEB, data, tmp_path, "SOLVER.MAX_EPOCH", "3", "TEST.EVAL_PERIOD", "1", "WRITE_PERIOD", str(write_period)
    )
    trained = train(options, CELEB)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert sum("mAP" in line for line in lines) == 3
    assert lines[-1]["CSVDataset/general/mAP"] == pytest.approx(trained.results["CSVDataset/general/mAP"])
    iterations = [line["iteration"] for line in lines if "loss_cls" in line]
    assert len(set(iterations)) == len(iterations)
    assert iterations[-1] == trained.max_iter - 1
    if write_period == 1:
        assert iterations == list(range(trained.max_iter))


def test_several_test_sets_are_scored_by_name(data: Path, tmp_path: Path) -> None:
    csv_files = str((("Left", str(data / "dataset.csv")), ("Right", str(data / "dataset.csv"))))
    options = small(CELEB, data, tmp_path, "DATASETS.CSV", csv_files, "DATASETS.TESTS", "('Left', 'Right')")
    trained = train(options, CELEB)
    assert list(trained.results) == ["Left", "Right"]
    last = json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])
    for name in ("Left", "Right"):
        assert last[f"{name}/mAP"] == pytest.approx(trained.results[name]["mAP"])
        assert last[f"{name}/CC/mAP"] == pytest.approx(trained.results[name]["CC/mAP"])


def test_clothes_adversarial_loss_trains_on_clothes_ids(data: Path, tmp_path: Path) -> None:
    losses = "('CrossEntropyLoss', 'ClothesAdversarialLoss')"
    trainer = train(small(CELEB, data, tmp_path, "MODEL.LOSSES.NAME", losses), CELEB)
    assert trainer.model.clothes_loss.weight.shape[0] == 16
    assert [number // 2 for number in range(16)] == trainer.cfg.MODEL.LOSSES.CLOTHES_ADVERSARIAL.CLOTHES_PERSONS


def test_cached_teacher_gives_the_losses_of_the_online_one(data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options = ["MODEL.TEACHER.CACHE_DIR", str(cache)]
    assert (
        run_verb(["cache-teacher", "--config-file", str(CELEB), *small(CELEB, data, tmp_path / "none", *options)]) == 0
    )
    histories = []
    for mode in ("online", "cached"):
        output = tmp_path / mode
        train(small(CELEB, data, output, "MODEL.TEACHER.MODE", mode, "WRITE_PERIOD", "1", *options), CELEB)
        lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
        histories.append([line for line in lines if "loss_ot" in line])
    assert len(histories[0]) >= 2
    for online, cached in zip(*histories):
        for name in ("loss_cls", "loss_ot", "loss_global", "loss_ot_synthetic", "loss_body_shape"):
            assert cached[name] == pytest.approx(online[name], rel=2e-3, abs=1e-4), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("DATASETS.NAMES", "('CelebReID',)"), "Celeb-reID"),
        (("DATASETS.NAMES", "('CelebRID',)"), "CelebReID"),
        (("MODEL.TEACHER.NAME", "ViT-L-41", "MODEL.TEACHER.PRETRAINED", "openai"), "ViT-L-14"),
        (("MODEL.BODY.PATH", "/nowhere/smpl"), "/nowhere/smpl"),
        (("MODEL.LOSSES.NAME", "('CrossEntropyLos',)"), "CrossEntropyLoss"),
        (("DATALOADER.NUM_INSTANCE", "16"), None),
        (("SOLVER.IMS_PER_BATCH", "4096"), "32 images of 8 people, fewer images than one batch"),
        (("DATASETS.SYNTHETIC", "NoBodies"), "NoBodies"),
        (("DATALOADER.SYNTHETIC_PER_BATCH", "0"), "BodyShapeLoss needs synthetic bodies"),
        (("MODEL.META_ARCHITECTURE", "CLIP3DReId"), "CLIP3DReID"),
        (("MODEL.HEADS.NAME", "MLPHed"), "MLPHead"),
        (("MODEL.TEACHER.MODE", "cache"), "online, cached, auto"),
        (("MODEL.TEACHER.MODE", "cached", "MODEL.TEACHER.CACHE_DIR", "/nowhere"), "/nowhere"),
        (("MODEL.SYNTHETIC_STATISTICS", "apart"), "one of shared, separate"),
    ],
)
def test_wrong_settings_are_errors_before_training(
    data: Path, tmp_path: Path, options: tuple[str, ...], words: str | None
) -> None:
    if words is None:
        train(small(CELEB, data, tmp_path, *options), CELEB)  # 1 x 16 is unusual, and works
        return
    with pytest.raises(ClearError, match=words):
        train(small(CELEB, data, tmp_path, *options), CELEB)


def run_tool(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "tools/train_net.py", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_the_command_line_prints_an_error_in_one_message(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--config-file", str(CELEB), *small(CELEB, data, tmp_path, "MODEL.DEVICE", "cuda")])
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and "MODEL.DEVICE is 'cuda'" in printed and "Traceback" not in printed
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    result = run_tool("--config-file", str(CELEB), *small(CELEB, data, tmp_path, "OUTPUT_DIR", str(blocked / "run")))
    assert result.returncode == 2 and "cannot be written" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("seldom", [False, True], ids=["read in every step", "read as on CUDA"])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    seldom: bool, data: Path, tmp_path: Path
) -> None:
    options = small(
        CELEB, data, tmp_path, "SOLVER.MAX_EPOCH", "3", "SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.IMS_PER_BATCH", "8"
    )
    cfg = load_config(str(CELEB), options)
    trainer = CLIP3DTrainer(cfg)
    trainer._reads_seldom = seldom

    original = trainer.model.ot_loss.forward

    def poisoned(*arguments: torch.Tensor) -> torch.Tensor:
        loss = original(*arguments)
        return loss * float("nan") if trainer.iter == 5 else loss

    trainer.model.ot_loss.forward = poisoned
    trainer.resume_or_load(resume=False)
    with pytest.raises(ClearError, match="Iteration 5: .*loss_ot.* is nan"):
        trainer.train()
    assert trainer.iter == (7 if seldom else 5), "an epoch has four iterations"
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000.pth"
    saved = torch.load(tmp_path / "model_0000.pth", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in saved.values())
    assert not (tmp_path / "model_final.pth").exists()


def test_losses_that_wait_on_the_device_are_written_as_before(data: Path, tmp_path: Path) -> None:
    """Lines at iterations 2, 3, 5 and 7: every three, and the end of both epochs of four."""
    lines = []
    for seldom in (False, True):
        output = tmp_path / str(seldom)
        options = small(CELEB, data, output, "SOLVER.MAX_EPOCH", "2", "SOLVER.IMS_PER_BATCH", "8", "WRITE_PERIOD", "3")
        torch.manual_seed(0)
        np.random.seed(0)
        trainer = CLIP3DTrainer(load_config(str(CELEB), options))
        trainer._reads_seldom = seldom
        trainer.resume_or_load(resume=False)
        trainer.train()
        written = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
        of_time = {"time", "data_time", "eta_seconds", "images_per_second"}
        lines.append([{key: value for key, value in line.items() if key not in of_time} for line in written])
    assert [line["iteration"] for line in lines[0] if "loss_ot" in line] == [2, 3, 5, 7]
    assert lines[1] == lines[0]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_leaves_a_checkpoint_that_resumes(data: Path, tmp_path: Path, sign: signal.Signals) -> None:
    options = small(CELEB, data, tmp_path, "SOLVER.MAX_EPOCH", "400", "SOLVER.CHECKPOINT_PERIOD", "1")
    process = subprocess.Popen(
        [sys.executable, "tools/train_net.py", "--config-file", str(CELEB), *options],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / "model_0002.pth").is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(sign)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if sign is signal.SIGINT:
        assert "interrupted" in errors.splitlines()[-1]
    last = (tmp_path / "last_checkpoint").read_text()
    epoch = torch.load(tmp_path / last, weights_only=True)["epoch"]
    again = load_config(str(CELEB), [*options, "SOLVER.MAX_EPOCH", str(epoch + 2)])
    trainer = CLIP3DTrainer(again)
    trainer.resume_or_load(resume=True)
    assert trainer.start_epoch == epoch + 1
    trainer.train()
    assert (tmp_path / "model_final.pth").is_file()


def test_a_damaged_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "model_0001.pth"
    damaged.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ClearError, match="model_0001.pth .MODEL.WEIGHTS. cannot be read as weights"):
        train(small(CELEB, data, tmp_path / "run", "MODEL.WEIGHTS", str(damaged)), CELEB)
    with pytest.raises(ClearError, match="gone.pth: no such file or folder"):
        train(small(CELEB, data, tmp_path / "run", "MODEL.WEIGHTS", str(tmp_path / "gone.pth")), CELEB)


def test_flip_test_averages_an_image_and_its_mirror_image(data: Path, tmp_path: Path) -> None:
    trained = train(small(CELEB, data, tmp_path), CELEB)
    options = (
        "MODEL.WEIGHTS", str(tmp_path / "model_final.pth"), "TEST.FLIP.ENABLED", "True",
        "TEST.EVALUATION.SAVE_FEATURES", "True",
    )  # fmt: skip
    evaluate(inference_config(load_config(str(CELEB), small(CELEB, data, tmp_path, *options))))
    kept = np.load(tmp_path / "evaluation" / "CSVDataset_features.npz", allow_pickle=False)
    loader, _ = CLIP3DTrainer.build_evaluator(trained.cfg, "CSVDataset")
    model = trained.model.eval()
    expected = []
    with torch.no_grad():
        for batch in loader:
            images = batch["images"]
            sides = [model({"images": side.clone()}) for side in (images, images.flip(3))]
            expected.append((sides[0] + sides[1]) / 2)
    expected = torch.nn.functional.normalize(torch.cat(expected)).numpy()
    found = np.concatenate([kept["query_features"], kept["gallery_features"]])
    np.testing.assert_allclose(found / np.linalg.norm(found, axis=1, keepdims=True), expected, atol=2e-5)
