"""The way from people to an installed teacher, in miniature: two stages, an interruption, the report."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from fastreid_clip3d.teacher import load_teacher
from tools.assets.teacher import recipe as embedded
from tools.assets.teacher.recipe import Stage, TeacherRecipe, make_teacher
from tools.assets.teacher.settings import TrainingSettings
from tools.assets.train_teacher import parse_arguments

RECIPE = TeacherRecipe(stages=(Stage(0, 3, 1, 1e-3, 1), Stage(0, 2, 0, 1e-3, 1)), grey=12, held_out=8, batch=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    tower = {"visual_tower": "test_efficientnet", "embed_dim": 16, "text_width": 32, "text_layers": 1, "text_steps": 2}
    patch.setattr(embedded, "TrainingSettings", lambda **stage: TrainingSettings(**{**tower, **stage}))
    folder = tmp_path_factory.mktemp("made")
    torch.save({}, folder / "none.pth")
    patch.setattr("tools.assets.teacher.model._load_trunk", lambda trunk, path: None)
    first = make_teacher(RECIPE, folder, folder / "none.pth", progress=False)
    yield first, make_teacher(RECIPE, folder, folder / "none.pth", progress=False), folder
    patch.undo()


def test_the_folder_says_how_it_was_made_and_loads(made):
    first, _, _ = made
    record = json.loads((first.folder / "report.json").read_text())
    assert record["recipe"] == json.loads(json.dumps(dataclasses.asdict(RECIPE)))
    assert record["report"]["images"]["all"] == 8 and record["seconds"] > 0
    assert load_teacher(f"local-dir:{first.folder}").embed_dim == 16


def test_a_second_run_trains_nothing_and_says_the_same(made):
    first, second, folder = made
    assert second.seconds == first.seconds
    assert second.report == first.report
    assert sorted(path.name for path in folder.glob("stage-*")) == ["stage-0", "stage-1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--people", "0", "--grey", "0"], "must not both be 0"),
        (["--views", "3"], "--views needs --people"),
        (["--learning-rate", "0.5"], "--learning-rate needs --people"),
        (["--steps", "5"], "--steps needs --people"),
        (["--people", "8", "--learning-rate", "0"], "--learning-rate must be above 0"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--output", "x", *arguments])
    assert message in capsys.readouterr().err


def test_one_kind_of_people_is_enough():
    assert parse_arguments(["--output", "x", "--people", "0"]).grey == 24000
    assert parse_arguments(["--output", "x", "--grey", "0"]).people is None


def test_the_second_stage_begins_with_the_first(made):
    folder = made[2]
    states = [torch.load(folder / f"stage-{n}" / "training_state.pt", weights_only=True) for n in (0, 1)]
    assert [state["step"] for state in states] == [3, 2]
    text = [state["average"]["positional_embedding"].numpy() for state in states]
    assert np.abs(text[0] - text[1]).max() < 0.02  # two steps away, not a fresh start
    fresh = torch.load(folder / "stage-0" / "training_state.pt", weights_only=True)["average"]["token_embedding.weight"]
    np.testing.assert_allclose(states[1]["average"]["token_embedding.weight"], fresh, atol=0.02)
