"""A resumed run is the run that was never stopped, bit for bit on a CPU; what cannot be resumed is a clear error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.engine.trainer import CLIP3DTrainer
from fastreid_clip3d.errors import ClearError
from tests.conftest import REPOSITORY
from tests.engine.tiny_run import CONFIG, options

BAG_OF_TRICKS = str(REPOSITORY / "configs" / "Baselines" / "celeb_bagtricks.yml")
AUGMENTED = {f"INPUT__{name}__ENABLED": "True" for name in ("FLIP", "REA", "CJ", "AUTOAUG")}

# Precise batch norm builds a second loader, after that of the training.
PRECISE = {
    f"TEST__PRECISE_BN__{key}": value
    for key, value in {"ENABLED": "True", "DATASET": "CSVDataset", "NUM_ITER": "2"}.items()
}


@pytest.fixture(autouse=True)
def datasets_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(data))
    monkeypatch.setattr("fastreid.data.build._root", str(data))  # fast-reid's loader reads the variable at its import


def start(config: str, data: Path, output: Path, resume: bool = False, **changed: str) -> CLIP3DTrainer:
    cfg = load_config(config, options(data, output, **changed))
    cfg.freeze()
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0 if not resume else 999)  # a new process draws other numbers
    np.random.seed(0 if not resume else 999)
    trainer = CLIP3DTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def as_if_killed_after(epoch: int, run: Path, copy: Path) -> Path:
    """A folder as a run leaves it that was killed after the checkpoint of this epoch and some steps more."""
    shutil.copytree(run, copy)
    for later in copy.glob("model_*.pth"):
        if later.name != f"model_{epoch:04d}.pth":
            later.unlink()
    (copy / "last_checkpoint").write_text(f"model_{epoch:04d}.pth")
    return copy


def state(trainer: CLIP3DTrainer) -> dict[str, torch.Tensor]:
    return trainer.model.state_dict()


CASES = {
    "the method": (CONFIG, {}),
    "the method, two workers": (CONFIG, {"DATALOADER__NUM_WORKERS": "2"}),
    "precise batch norm": (CONFIG, PRECISE),
    "fast-reid's loader": (BAG_OF_TRICKS, {"DATALOADER__SYNTHETIC_PER_BATCH": "0"}),
    "fast-reid's loader, precise batch norm": (BAG_OF_TRICKS, {"DATALOADER__SYNTHETIC_PER_BATCH": "0", **PRECISE}),
    "fast-reid's loader, imbalanced sampler": (
        BAG_OF_TRICKS,
        {"DATALOADER__SYNTHETIC_PER_BATCH": "0", "DATALOADER__SAMPLER_TRAIN": "ImbalancedDatasetSampler"},
    ),
    "the method, imbalanced sampler": (
        CONFIG,
        {
            "DATALOADER__SYNTHETIC_PER_BATCH": "0",
            "DATALOADER__SAMPLER_TRAIN": "ImbalancedDatasetSampler",
            "MODEL__LOSSES__NAME": "('CrossEntropyLoss', 'GlobalDistillLoss')",
        },
    ),
    "bfloat16": (
        BAG_OF_TRICKS,
        {"DATALOADER__SYNTHETIC_PER_BATCH": "0", "SOLVER__AMP__ENABLED": "True", "SOLVER__AMP__DTYPE": "bfloat16"},
    ),
}


@pytest.mark.parametrize(("config", "changes"), CASES.values(), ids=CASES.keys())
def test_a_resumed_run_with_augmentation_is_the_undisturbed_one(
    config: str, changes: dict[str, str], data: Path, tmp_path: Path
) -> None:
    changes = {**AUGMENTED, **changes, "SOLVER__MAX_EPOCH": "3", "SOLVER__WARMUP_ITERS": "3"}
    whole = start(config, data, tmp_path / "whole", **changes)
    whole.train()
    killed = as_if_killed_after(0, tmp_path / "whole", tmp_path / "killed")
    resumed = start(config, data, killed, resume=True, **changes)
    assert resumed.start_epoch == 1
    resumed.train()
    assert all(torch.equal(value, state(resumed)[name]) for name, value in state(whole).items())
    first, second = (
        [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
        for folder in (tmp_path / "whole", killed)
    )
    kept = ("iteration", "lr", "mAP")  # fast-reid writes losses as medians over the steps of this process
    assert [{key: line.get(key) for key in kept} for line in first] == [
        {key: line.get(key) for key in kept} for line in second
    ]


FROZEN = {"DATALOADER__SYNTHETIC_PER_BATCH": "0", "MODEL__FREEZE_LAYERS": "('backbone',)", "TEST__EVAL_PERIOD": "1"}


@pytest.mark.parametrize("epoch", [0, 1], ids=["stopped while layers are frozen", "stopped when they are thawed"])
def test_a_run_with_layers_frozen_at_first_is_resumed(epoch: int, data: Path, tmp_path: Path) -> None:
    changes = {**FROZEN, "SOLVER__FREEZE_ITERS": "3", "SOLVER__MAX_EPOCH": "3"}  # two iterations per epoch
    whole = start(BAG_OF_TRICKS, data, tmp_path / "whole", **changes)
    whole.train()
    killed = as_if_killed_after(epoch, tmp_path / "whole", tmp_path / "killed")
    resumed = start(BAG_OF_TRICKS, data, killed, resume=True, **changes)
    assert resumed.start_epoch == epoch + 1
    resumed.train()
    assert all(torch.equal(value, state(resumed)[name]) for name, value in state(whole).items())


def test_an_evaluation_does_not_thaw_the_batch_norms_of_frozen_layers(data: Path, tmp_path: Path) -> None:
    trainer = start(BAG_OF_TRICKS, data, tmp_path, **FROZEN, SOLVER__FREEZE_ITERS="100", SOLVER__MAX_EPOCH="3")
    before = {name: value.clone() for name, value in state(trainer).items() if name.startswith("backbone.")}
    trainer.train()
    assert all(torch.equal(value, state(trainer)[name]) for name, value in before.items())


def test_float16_goes_on_with_its_loss_scale(data: Path, tmp_path: Path) -> None:
    """The command takes float16 on CUDA only. The trainer takes it on a CPU too, where one step would take minutes."""
    changes = {"DATALOADER__SYNTHETIC_PER_BATCH": "0", "SOLVER__AMP__ENABLED": "True", "SOLVER__AMP__DTYPE": "float16"}
    killed = start(BAG_OF_TRICKS, data, tmp_path, **changes)
    new = killed.grad_scaler.state_dict()
    killed.grad_scaler.load_state_dict({**new, "scale": 48.0, "_growth_tracker": 17})
    killed.checkpointer.save("model_0000", epoch=0)
    resumed = start(BAG_OF_TRICKS, data, tmp_path, resume=True, **{**changes, "SOLVER__MAX_EPOCH": "2"})
    assert resumed.grad_scaler.state_dict() == {**new, "scale": 48.0, "_growth_tracker": 17} != new
    assert resumed._trainer.grad_scaler.scale(torch.ones(())) == 48


def test_two_seeds_are_two_runs(data: Path, tmp_path: Path) -> None:
    """Without this the test above would pass if augmentation were switched off."""
    batches = []
    for seed in ("0", "1"):
        loader = start(BAG_OF_TRICKS, data, tmp_path / seed, SEED=seed, DATALOADER__SYNTHETIC_PER_BATCH="0").data_loader
        first = loader.dataset[(0, int(seed))]["images"]
        assert torch.equal(first, loader.dataset[(0, int(seed))]["images"])
        batches.append(first)
    assert not torch.equal(*batches)


def test_tensorboard_shows_no_step_twice(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = {"DATALOADER__SYNTHETIC_PER_BATCH": "0", "SOLVER__MAX_EPOCH": "2"}
    start(BAG_OF_TRICKS, data, tmp_path / "whole", **changes).train()
    killed = as_if_killed_after(0, tmp_path / "whole", tmp_path / "killed")
    start(BAG_OF_TRICKS, data, killed, resume=True, **changes).train()
    events = EventAccumulator(str(killed)).Reload()
    steps = [event.step for event in events.Scalars("total_loss")]
    assert steps == [0, 1, 2, 3]


def test_a_run_that_was_ended_before_its_first_checkpoint_shows_no_step_twice(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = {"DATALOADER__SYNTHETIC_PER_BATCH": "0"}  # two steps, then the evaluation
    for resume, lines in ((False, 3), (True, 3), (False, 6)):  # a training that begins anew adds its curves
        for checkpoint in (*tmp_path.glob("*.pth"), *tmp_path.glob("last_checkpoint")):
            checkpoint.unlink()
        start(BAG_OF_TRICKS, data, tmp_path, resume=resume, **changes).train()
        iterations = [json.loads(line)["iteration"] for line in (tmp_path / "metrics.json").read_text().splitlines()]
        assert iterations == [0, 1, 2] * (lines // 3)
        if resume:
            events = EventAccumulator(str(tmp_path)).Reload()
            assert [event.step for event in events.Scalars("total_loss")] == [0, 1]


def change_checkpoint(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / (folder / "last_checkpoint").read_text()
    content = torch.load(path, weights_only=True)
    torch.save(change(content) or content, path)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(data))
        patch.setattr("fastreid.data.build._root", str(data))
        start(BAG_OF_TRICKS, data, folder, DATALOADER__SYNTHETIC_PER_BATCH="0").train()
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: [1, 2], "model_final.pth .* holds no weights: .*a list"),
        (lambda content: {"epoch": 0}, "holds no weights"),
        (lambda content: content["model"], "cannot be resumed: it has no model and no optimizer and no epoch"),
        (lambda content: content.pop("epoch"), "cannot be resumed: it has no epoch"),
        (lambda content: content["model"].pop("backbone.conv1.weight"), "lacks 1 .*backbone.conv1.weight"),
        (lambda content: content["optimizer"].update(param_groups=[]), "optimizer has no parameter groups"),
        (lambda content: content["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)), "state of 3 numbers"),
        (lambda content: content["optimizer"].update(param_groups=[1]), "its optimizer does not fit"),
        (lambda content: content["optimizer"].update(state=[1, 2]), "its optimizer does not fit"),
        (lambda content: content["optimizer"].update(state={0: 3}), "its optimizer does not fit"),
        (lambda content: content["optimizer"].update(state={10**6: {}}), "its optimizer does not fit"),
    ],
)
def test_checkpoints_that_cannot_be_resumed_are_named(
    change: Callable[[dict[str, Any]], Any], message: str, finished: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)

    def changed(content: dict[str, Any]) -> Any:
        new = change(content)
        return new if isinstance(new, (list, dict)) else content

    change_checkpoint(run, changed)
    with pytest.raises(ClearError, match=message):
        start(BAG_OF_TRICKS, data, run, resume=True, DATALOADER__SYNTHETIC_PER_BATCH="0")


def test_files_that_are_no_checkpoints_are_named_on_resume(finished: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "model_final.pth").write_bytes(b"")
    with pytest.raises(ClearError, match="model_final.pth .--resume. cannot be read as weights: the file is empty"):
        start(BAG_OF_TRICKS, data, run, resume=True, DATALOADER__SYNTHETIC_PER_BATCH="0")
    (run / "last_checkpoint").write_bytes(b"\x00\xff")
    with pytest.raises(ClearError, match="last_checkpoint names .*Name one of its checkpoints: model_final.pth"):
        start(BAG_OF_TRICKS, data, run, resume=True, DATALOADER__SYNTHETIC_PER_BATCH="0")


def test_the_state_of_another_optimiser_is_refused(finished: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    with pytest.raises(ClearError, match="another optimiser than SOLVER.OPT SGD: its settings are .*betas"):
        start(BAG_OF_TRICKS, data, run, resume=True, SOLVER__OPT="SGD", DATALOADER__SYNTHETIC_PER_BATCH="0")


def test_weights_of_another_run_start_a_training_with_a_new_classifier(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    changes = {"DATALOADER__SYNTHETIC_PER_BATCH": "0"}
    for name in ("model_final.pth", "last_checkpoint", ""):
        trainer = start(BAG_OF_TRICKS, data, tmp_path / "next", MODEL__WEIGHTS=str(finished / name), **changes)
        saved = torch.load(finished / "model_final.pth", weights_only=True)["model"]
        assert trainer.start_epoch == 0
        assert torch.equal(state(trainer)["backbone.conv1.weight"], saved["backbone.conv1.weight"])
    change = {"MODEL__BACKBONE__DEPTH": "34x", "MODEL__WEIGHTS": str(finished)}
    with pytest.raises(ClearError, match=r"model_final.pth \(MODEL.WEIGHTS\) lacks .* of the .* tensors"):
        start(BAG_OF_TRICKS, data, tmp_path / "next", **changes, **change)
