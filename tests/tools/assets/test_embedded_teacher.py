"""The teacher that ships: loadable, deterministic, small, and better than always guessing the commoner phrase."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastreid_clip3d.teacher import load_teacher
from fastreid_clip3d.teacher.sources import EMBEDDED_FOLDER
from fastreid_clip3d.vocabulary import NUM_PAIRS
from tools.assets.teacher.people import CHUNK, KINDS, PeopleSettings, grey_pictures, make_pictures, soft_targets
from tools.assets.teacher.recipe import HELD_OUT_SEED, install

SEED = 424242  # of people that neither training nor the shipped report has seen


@pytest.fixture(scope="module")
def teacher():
    return load_teacher("embedded")


@pytest.fixture(scope="module")
def greys():
    return grey_pictures(PeopleSettings(seed=SEED), range(96))


def test_it_is_small_and_says_how_it_was_made(teacher):
    files = {path.name: path.stat().st_size for path in EMBEDDED_FOLDER.iterdir()}
    assert set(files) >= {"open_clip_config.json", "open_clip_model.safetensors", "report.json"}
    assert sum(files.values()) < 14 * 2**20
    record = json.loads((EMBEDDED_FOLDER / "report.json").read_text())
    assert {"recipe", "training", "seconds", "report"} <= set(record)
    assert teacher.image_size == tuple(record["training"]["image_size"])


def test_it_answers_the_same_every_time(teacher, greys):
    images = torch.from_numpy(greys.images[:8]).permute(0, 3, 1, 2)
    again = load_teacher("embedded")
    assert again.fingerprint == teacher.fingerprint
    for first, second in zip(teacher.label_images(images), again.label_images(images)):
        assert torch.equal(first, second)


def test_it_beats_the_commoner_phrase_on_people_it_has_not_seen(teacher, greys):
    choices = teacher.label_images(torch.from_numpy(greys.images).permute(0, 3, 1, 2))[2].numpy()
    right = (choices == greys.phrase_choices).mean()
    share = greys.phrase_choices.mean(0)
    assert right > np.maximum(share, 1 - share).mean() + 0.04, right


def test_its_features_have_clips_own_scale(teacher, greys):
    features = teacher.encode_images(torch.from_numpy(greys.images).permute(0, 3, 1, 2))
    assert 0.25 < float(features.square().mean().sqrt()) < 0.8
    # opposite phrases are told apart, and so are people
    assert float(torch.nn.functional.cosine_similarity(features[:1], features[1:]).min()) < 0.9


def test_people_do_not_depend_on_the_chunk_they_are_drawn_in(greys):
    alone = grey_pictures(PeopleSettings(seed=SEED), range(0, 8))
    plain = alone.kinds >= 0
    np.testing.assert_allclose(alone.targets, greys.targets[:8], atol=1e-4)
    assert plain.all() and (alone.pids == greys.pids[:8]).all()


def test_held_out_people_are_others(greys):
    other = grey_pictures(PeopleSettings(seed=SEED + HELD_OUT_SEED), range(8))
    assert not np.isclose(other.targets, greys.targets[:8], atol=1e-3).all(1).any()


def test_more_people_are_more_chunks(tmp_path):
    few = make_pictures(PeopleSettings(clothed=0, grey=10, seed=SEED), tmp_path, progress=False)
    chunks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.npz")}
    more = make_pictures(PeopleSettings(clothed=0, grey=CHUNK, seed=SEED), tmp_path, progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.npz")} == chunks and len(chunks) == 1
    assert len(few.images) == 10 and len(more.images) == CHUNK
    np.testing.assert_array_equal(few.images, more.images[:10])
    assert set(more.kinds) == {KINDS.index("grey, fixed"), KINDS.index("grey, crop")}


def test_soft_targets():
    scores = np.zeros((3, NUM_PAIRS))
    scores[1], scores[2] = 2.0, -2.0
    targets = soft_targets(scores, np.zeros(NUM_PAIRS), np.ones(NUM_PAIRS))
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets[:, 0], [0.5, 1 / (1 + np.exp(-6)), 1 / (1 + np.exp(6))], rtol=1e-5)


def test_install_copies_whole_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.assets.teacher.recipe.EMBEDDED_FOLDER", tmp_path / "package")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "open_clip_config.json").write_text("{}")
    (tmp_path / "model" / ".report.json.partial").write_text("half")
    assert [path.name for path in install(tmp_path / "model").iterdir()] == ["open_clip_config.json"]
