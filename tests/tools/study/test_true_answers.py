"""The truth in a teacher's cache: read by the training's own reader, which still refuses what it refused before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.synthcc.index import true_choices
from fastreid_clip3d.teacher.cache import CacheError, TeacherCache, build_cache
from fastreid_clip3d.teacher.clip import load_teacher
from fastreid_clip3d.teacher.guidance import cache_folder, guidance_from_config
from fastreid_clip3d.teacher.labels import choose_phrases
from tests.tools.study.small_benchmark import teacher_options
from tools.study import variants
from tools.study.synthcc import SynthCCStudy
from tools.study.true_answers import EMBEDDINGS, LABELS, true_embeddings, write_true_answers

METHOD = "configs/CLIP3D/synthcc.yml"


@pytest.fixture(scope="module")
def data(benchmark_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmark, beside which there is its teacher's cache of three shards."""
    root = benchmark_folder
    images = sorted((root / "SynthCC-tiny" / "train").glob("*.jpg"))
    teacher = load_teacher(f"local-dir:{root / 'teacher'}")
    folder = cache_folder(config(root, root / "teacher_cache"))
    build_cache(images, teacher, folder, root=root, images_per_shard=12, progress=False)
    return root


def config(data: Path, cache_dir: Path):
    cached = ["MODEL.TEACHER.CACHE_DIR", str(cache_dir), "MODEL.TEACHER.MODE", "cached"]
    return load_config(METHOD, [*teacher_options(data), *cached])


@pytest.fixture
def source(data: Path) -> Path:
    return cache_folder(config(data, data / "teacher_cache"))


def test_labels_are_the_true_ones_and_everything_else_is_the_teachers(data: Path, source: Path, tmp_path: Path) -> None:
    target = write_true_answers(source, tmp_path / "true" / source.name, data / "SynthCC-tiny")
    old, new = TeacherCache(source), TeacherCache(target)
    truth = true_choices(data / "SynthCC-tiny", ("train",))
    assert len(new) == len(truth) == 32
    changed = 0
    for name, choices in truth.items():
        path = data / "SynthCC-tiny" / name
        for flipped in (False, True):
            features, labels = new.lookup(path, flipped)
            assert torch.equal(features, old.lookup(path, flipped)[0])
            np.testing.assert_array_equal(labels, choices)
            np.testing.assert_array_equal(choose_phrases(new.scores(path, flipped)), choices)
            changed += int((labels != old.lookup(path, flipped)[1]).any())
    assert changed > 32  # a teacher of random weights is not right by chance
    assert torch.equal(new.phrase_table, old.phrase_table) and new.fingerprint == old.fingerprint
    assert "true descriptors" in json.loads((target / "manifest.json").read_text())["labels"]
    assert "labels" not in json.loads((source / "manifest.json").read_text())


def test_a_true_g_is_the_body_and_nothing_else(data: Path, source: Path) -> None:
    with np.load(data / "SynthCC-tiny" / "index.npz") as arrays:
        train = arrays["split"] == "train"
        bodies = np.concatenate((arrays["scores"], arrays["betas"]), 1)[train].astype(np.float64)
        files = arrays["files"][train]
    embeddings = true_embeddings(data / "SynthCC-tiny", 40)
    made = np.stack([embeddings[str(file)] for file in files])
    assert made.shape == (len(files), 40) and np.square(made).mean() == pytest.approx(1)
    standard = ((bodies - bodies.mean(0)) / bodies.std(0)).clip(-3, 3)
    # an orthonormal matrix keeps all distances, up to the one factor
    distances = [np.linalg.norm(rows[:, None] - rows[None], axis=-1) for rows in (standard, made)]
    factor = np.linalg.norm(made) / np.linalg.norm(standard)
    np.testing.assert_allclose(distances[1], factor * distances[0], atol=1e-9)


def test_a_true_g_in_the_cache_has_the_teachers_size(data: Path, source: Path, tmp_path: Path) -> None:
    dataset = data / "SynthCC-tiny"
    with pytest.raises(ClearError, match="at least 26 numbers"):
        write_true_answers(source, tmp_path / "small", dataset, (LABELS, EMBEDDINGS))  # this teacher's g is smaller
    images = sorted((dataset / "train").glob("*.jpg"))
    own = tmp_path / "own"
    build_cache(images, load_teacher("embedded"), own, root=data, images_per_shard=12, progress=False)
    target = write_true_answers(own, tmp_path / "true", dataset, (LABELS, EMBEDDINGS))
    old, new = TeacherCache(own), TeacherCache(target)
    truth, labels = true_embeddings(dataset, 128), true_choices(dataset)
    was, is_now = [], []
    for path in images:
        name = path.relative_to(dataset).as_posix()
        features, choices = new.lookup(path, True)
        np.testing.assert_array_equal(choices, labels[name])
        is_now.append(features.float().numpy())
        was.append(old.lookup(path, True)[0].float().numpy())
        assert np.corrcoef(is_now[-1], truth[name])[0, 1] > 0.9999
    assert np.sqrt(np.square(is_now).mean()) == pytest.approx(np.sqrt(np.square(was).mean()), rel=0.05)
    assert "and bodies" in json.loads((target / "manifest.json").read_text())["labels"]
    write_true_answers(own, target, dataset, (LABELS,))  # other truth is not up to date
    assert torch.equal(TeacherCache(target).lookup(images[0], False)[0], old.lookup(images[0], False)[0])


def test_training_takes_it_as_the_cache_of_its_teacher(data: Path, source: Path, tmp_path: Path) -> None:
    target = tmp_path / source.relative_to(source.parents[1])  # teacher and training sets
    write_true_answers(source, target, data / "SynthCC-tiny")
    guidance = guidance_from_config(config(data, tmp_path))
    assert guidance.teacher is None and guidance.cache.folder == target
    guidance.cache.require(load_teacher(f"local-dir:{data / 'teacher'}").fingerprint, content=True)
    with pytest.raises(CacheError, match="other teacher weights"):
        guidance.cache.require(load_teacher("embedded").fingerprint)


def test_a_study_writes_it_where_the_row_looks_for_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(data))
    monkeypatch.setattr("tools.study.synthcc.write_true_answers", lambda source, target, *_: target)
    rows = variants.chosen(variants.table_10(), ["true_labels", "true_shape"])
    study = SynthCCStudy("10", "a title", rows, rows, tmp_path, data, seeds=(0,))
    for run in study.runs():
        written = study.write_true_answers(study._cache_options(run.variant), run.variant)
        assert written == cache_folder(load_config(run.config_file, run.all_options))


def test_damage_is_still_found(data: Path, source: Path, tmp_path: Path) -> None:
    target = write_true_answers(source, tmp_path / "true", data / "SynthCC-tiny")
    shard = target / "shard-00001.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CacheError, match="shard-00001 is damaged"):
        TeacherCache(target)
    write_true_answers(source, target, data / "SynthCC-tiny")  # repairs it
    assert len(TeacherCache(target)) == 32


def test_what_is_up_to_date_is_left_alone(data: Path, source: Path, tmp_path: Path) -> None:
    target = write_true_answers(source, tmp_path / "true", data / "SynthCC-tiny")
    before = {path.name: path.stat().st_mtime_ns for path in target.iterdir()}
    write_true_answers(source, target, data / "SynthCC-tiny")
    assert {path.name: path.stat().st_mtime_ns for path in target.iterdir()} == before


def test_a_teachers_own_cache_is_never_overwritten(data: Path, source: Path) -> None:
    with pytest.raises(ClearError, match="teacher's own cache"):
        write_true_answers(source, source, data / "SynthCC-tiny")
    assert len(TeacherCache(source)) == 32


def test_images_that_the_set_does_not_describe_are_named(data: Path, source: Path, tmp_path: Path) -> None:
    other = tmp_path / "SynthCC-tiny"
    other.mkdir()
    with np.load(data / "SynthCC-tiny" / "index.npz") as arrays:
        np.savez(other / "index.npz", **arrays)
    with pytest.raises(ClearError, match="0000_o1_c1_00.jpg"):
        write_true_answers(source, tmp_path / "true", other)
    with pytest.raises(ClearError, match="render-people"):
        true_choices(tmp_path / "nowhere")
