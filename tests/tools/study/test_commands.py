"""Every command that a study or the demo starts is one that its parser accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastreid_clip3d.cli import verb_parser
from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from tools.study import real, variants
from tools.study.demo import Demo
from tools.study.demo.stages import MARKER
from tools.study.synthcc import SynthCCStudy

Commands = list[tuple[str, list[str]]]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Fills with (verb, arguments) of each command; none is started."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    found: Commands = []

    def note(command: list[str], *_: object) -> None:
        assert command[1:3] == ["-m", "fastreid_clip3d"]
        verb_parser(command[3]).parse_args(command[4:])  # raises SystemExit
        found.append((command[3], command[4:]))

    monkeypatch.setattr("tools.study.study.run_command", note)
    monkeypatch.setattr("tools.study.demo.stages.run_command", note)
    monkeypatch.setattr(Demo, "_export_weights", lambda self: None)
    return found


def test_a_study_on_synthcc_prepares_its_data_with_verbs(commands: Commands, tmp_path: Path) -> None:
    rows = [row for row in variants.table_cross() if row.name in ("natural_full", "shape_only_full")]
    study = SynthCCStudy("cross", "a title", rows, rows, tmp_path / "study", tmp_path)
    study.prepare()
    verbs = [verb for verb, _ in commands]
    assert verbs == ["render-people", "render-bodies", "render-people", "cache-teacher", "cache-teacher"]
    assert commands[2][1] == ["--root", str(tmp_path), "--variant", "shape-only"]
    assert str(tmp_path / "teacher_cache_shape_only") in commands[4][1]
    assert study.variants == rows and not study.left_out


def test_a_row_with_grey_bodies_in_scenes_renders_them(commands: Commands, tmp_path: Path) -> None:
    rows = variants.chosen(variants.table_10(), ["scene_bodies"])
    SynthCCStudy("10", "a title", rows, rows, tmp_path / "study", tmp_path, split="val").prepare()
    verbs = [verb for verb, _ in commands]
    assert verbs == ["render-people", "render-bodies", "render-bodies", "cache-teacher"]
    assert "--scene" in commands[2][1] and str(tmp_path / variants.SCENE_BODIES) in commands[2][1]


def test_a_study_on_datasets_caches_the_teacher_with_a_verb(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real.DatasetStudy, "missing", lambda self, variant: "")
    rows = variants.chosen(real.table_of_datasets("2"), ["celeb_clip3d", "celeb_bagtricks"])
    study = real.DatasetStudy("2", "Table 2", rows, rows, tmp_path / "study", tmp_path)
    study.prepare()
    ((verb, arguments),) = commands
    assert verb == "cache-teacher" and str(tmp_path / "teacher_cache" / "CelebReID") in arguments


def test_the_demo_renders_and_caches_with_verbs_and_trains_both_students(commands: Commands, tmp_path: Path) -> None:
    demo = Demo(tmp_path, tmp_path / "demo", seed=3, epochs=2)
    demo.prepare()
    demo._cache_teacher()
    assert [verb for verb, _ in commands] == ["render-people", "render-bodies", "cache-teacher"]
    baseline, method = demo.runs()
    for run in (baseline, method):
        cfg = load_config(run.config_file, run.all_options)
        assert (3, 2, str(run.folder)) == (cfg.SEED, cfg.SOLVER.MAX_EPOCH, cfg.OUTPUT_DIR)
        assert cfg.TEST.EVALUATION.SAVE_FEATURES and tuple(cfg.DATASETS.TESTS) == ("SynthCCTiny",)
    assert {key for key, value in method.config().items() if value != baseline.config()[key]} == {
        "MODEL.LOSSES.NAME", "DATALOADER.SYNTHETIC_PER_BATCH",
    }  # fmt: skip


@pytest.fixture
def stages(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the stages behind the preparation; they leave nothing behind but the rows."""
    for stage in ("_score_untrained", "_cache_teacher", "_train_both"):
        monkeypatch.setattr(Demo, stage, lambda self: None)
    monkeypatch.setattr(Demo, "_compare", lambda self: setattr(self, "rows", []))


def test_the_demo_runs_after_its_data_was_prepared_and_again(stages: None, tmp_path: Path) -> None:
    Demo(tmp_path / "data", tmp_path / "demo").prepare()
    assert Demo(tmp_path / "data", tmp_path / "demo").run() == []
    assert Demo(tmp_path / "data", tmp_path / "demo").run() == []
    with pytest.raises(ClearError, match="a demo with other settings .*--output"):
        Demo(tmp_path / "data", tmp_path / "demo", seed=1).run()


def test_a_demo_that_was_killed_before_its_marker_was_whole_goes_on(stages: None, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / f".{MARKER}.1.tmp").touch()
    assert Demo(tmp_path / "data", tmp_path / "demo").run() == []


def test_the_demo_leaves_a_folder_of_somebody_else_alone(stages: None, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").touch()
    with pytest.raises(ClearError, match="files that the demo did not write"):
        Demo(tmp_path / "data", tmp_path / "demo").run()


def test_a_misspelt_key_leaves_the_output_folder_free(stages: None, tmp_path: Path) -> None:
    with pytest.raises(ClearError, match="SOLVER.BASE_LRR"):
        Demo(tmp_path / "data", tmp_path / "demo", options=["SOLVER.BASE_LRR", "1"]).run()
    assert not (tmp_path / "demo").exists()
    assert Demo(tmp_path / "data", tmp_path / "demo", options=["SOLVER.BASE_LR", "1.0"]).run() == []
