"""Real trainings of two iterations: results, resuming, failures, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fastreid_clip3d.common.locks import lock_folder
from fastreid_clip3d.errors import ClearError
from tests.tools.study.small_benchmark import tiny_options
from tools.study import chamfer, results, runner, variants
from tools.study.synthcc import SynthCCStudy

UNKNOWN_LOSS = ("MODEL.LOSSES.NAME", "('CrossEntropyLos',)")
BROKEN = variants.Variant("broken", "a row that fails", variants.BAG_OF_TRICKS, UNKNOWN_LOSS)


def study_of(data: Path, folder: Path, split: str = "test", *options: str) -> SynthCCStudy:
    full = next(row for row in variants.table_10() if row.name == "full")
    rows = [full, BROKEN]
    return SynthCCStudy(
        "10", "a title", rows, rows, folder, data, seeds=(0,), split=split, jobs=2, command="the command",
        options=[*tiny_options(data), "DATALOADER.SYNTHETIC_PER_BATCH", "4", *options],
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(benchmark_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder with the full method trained and a row that failed."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(benchmark_folder))
        study = study_of(benchmark_folder, folder)
        failed = runner.run_all(study.runs(), study.jobs, study.environment, study.write_tables)
        assert [run.variant.name for run in failed] == ["broken"]
    return folder


@pytest.fixture(autouse=True)
def datasets_folder(benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(benchmark_folder))


def test_a_finished_run_has_its_scores_and_what_it_was_made_with(folder: Path) -> None:
    record = runner.read_record(folder / "table10" / "full" / "seed0")
    assert set(record["scores"]) == {"SynthCCTiny", "SynthCCTinyShapeOnly"}
    assert set(record["scores"]["SynthCCTiny"]) == {"CC", "SC", "general"}
    assert 0 <= record["scores"]["SynthCCTiny"]["CC"]["mAP"] <= 100
    assert record["seconds"] > 0 and record["config"]["SOLVER.IMS_PER_BATCH"] == "16" and "failure" not in record
    metrics = (folder / "table10" / "full" / "seed0" / "metrics.json").read_text()
    assert '"loss_body_shape"' in metrics and '"iteration": 1' in metrics


def test_a_failed_run_is_written_down_with_its_log(folder: Path) -> None:
    record = runner.read_record(folder / "table10" / "broken" / "seed0")
    log = folder / "table10" / "broken" / "seed0" / runner.LOG
    assert not record["scores"] and str(log) in record["failure"]
    assert "CrossEntropyLoss" in log.read_text()
    assert f"failed: broken, seed 0: {record['failure']}" in (folder / "table10" / "results.md").read_text()


def test_a_copy_of_a_run_beside_it_is_no_run(benchmark_folder: Path, folder: Path) -> None:
    copy = folder / "table10" / "full" / "seed0.bak"
    copy.mkdir()
    (copy / runner.RECORD).write_text((copy.parent / "seed0" / runner.RECORD).read_text())
    assert [run.seed for run in study_of(benchmark_folder, folder).runs_on_disk()] == [0, 0]


def test_the_tables_hold_the_finished_run(folder: Path) -> None:
    rows = results.read_csv(folder / "table10" / "results.csv")
    assert {(row["variant"], row["protocol"]) for row in rows} == {("full", "CC"), ("full", "SC"), ("full", "general")}
    assert (folder / "table10" / "results.png").is_file()
    assert "1 of the 2 started runs are finished" in (folder / "table10" / "results.md").read_text()


def test_what_is_done_is_not_made_again_and_other_settings_are_refused(benchmark_folder: Path, folder: Path) -> None:
    done = study_of(benchmark_folder, folder).runs()[0]
    assert done.is_done()
    before = (done.folder / runner.RECORD).read_bytes()
    assert runner.run_all([done], 1, {}) == []
    assert (done.folder / runner.RECORD).read_bytes() == before
    other = study_of(benchmark_folder, folder, "test", "SOLVER.BASE_LR", "0.5").runs()
    with pytest.raises(ClearError, match="SOLVER.BASE_LR was .*, is 0.5"):
        runner.run_all(other, 1, {})
    same = study_of(benchmark_folder, folder, "test", "DATALOADER.NUM_WORKERS", "1").runs()
    runner.check_settings(same)


def test_a_key_that_came_later_does_not_stop_a_study(benchmark_folder: Path, folder: Path, tmp_path: Path) -> None:
    run = study_of(benchmark_folder, folder).runs()[0]
    record = run.record()
    del record["config"]["MODEL.LOSSES.OT.REG"]
    record["config"]["MODEL.GONE"] = "1"
    runner.write_record(tmp_path / "table10" / "full" / "seed0", record)
    assert study_of(benchmark_folder, tmp_path).runs()[0].changes() == []


def test_the_same_model_is_scored_on_the_validation_people_without_training(
    benchmark_folder: Path, folder: Path
) -> None:
    study = study_of(benchmark_folder, folder, "val")
    run = study.runs()[0]
    model = run.folder / "model_final.pth"
    before = model.stat().st_mtime_ns
    assert not run.is_done() and runner.run_all([run], 1, study.environment, study.write_tables) == []
    assert run.is_done() and model.stat().st_mtime_ns == before
    assert set(run.record()["scores"]) == {"SynthCCTiny", "SynthCCTinyShapeOnly", "SynthCCTinyVal"}
    assert {row["dataset"] for row in results.read_csv(folder / "table10" / "results_val.csv")} == {"SynthCCTinyVal"}


def test_two_studies_do_not_train_in_one_folder(tmp_path: Path) -> None:
    run = study_of(tmp_path, tmp_path).runs()[0]
    with lock_folder(tmp_path), pytest.raises(ClearError, match=f"{tmp_path} is in use"):
        runner.run_all([run], 1, {}, folder=tmp_path)
    assert not run.folder.exists()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / runner.RECORD).write_text("{")
    with pytest.raises(ClearError, match="run.json cannot be read"):
        runner.read_record(tmp_path)


def test_progress_is_read_from_the_end_of_the_metrics(benchmark_folder: Path, tmp_path: Path) -> None:
    run = study_of(benchmark_folder, tmp_path).runs()[0]
    assert runner._steps_done(run) == 0
    run.folder.mkdir(parents=True)
    lines = [json.dumps({"iteration": step, "filling": "x" * 3000}) for step in (19, 39)]
    (run.folder / "metrics.json").write_text("\n".join(lines) + '\n{"iteration": 5')
    assert runner._steps_done(run) == 40
    assert run.iterations() == 2


def test_bodies_are_predicted_with_running_and_with_batch_statistics(benchmark_folder: Path, folder: Path) -> None:
    images = sorted(map(str, (benchmark_folder / "SyntheticBodies" / "images").iterdir()))
    run = folder / "table10" / "full" / "seed0"
    running = chamfer.predicted_betas(run, images)
    assert running.shape == (6, 10)
    torch.testing.assert_close(chamfer.predicted_betas(run, images, batch=4), running, rtol=1e-4, atol=1e-5)
    batch = chamfer.predicted_betas(run, images, batch_statistics=True)
    assert not torch.allclose(running, batch) and torch.isfinite(batch).all()
    assert chamfer.default_runs(folder) == [run]
    with pytest.raises(ClearError, match="Table 10"):
        chamfer.default_runs(folder / "nothing")


def test_the_time_left_is_estimated_from_enough_steps_only() -> None:
    assert runner._time_left(600.0, 100, 400) == "-- about 40 minutes left"
    assert runner._time_left(600.0, 0, 400) == "" == runner._time_left(600.0, 19, 400)
    assert runner._time_left(600.0, 400, 0) == "-- about 0 minutes left"
