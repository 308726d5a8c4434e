"""The SyntheticBodies set: the same bytes from the same settings, whatever stops the work, and clear messages."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fastreid_clip3d.body import descriptors, population_descriptors, synthetic_writer
from fastreid_clip3d.body.model import load_body_model
from fastreid_clip3d.body.synthetic_index import read_index
from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
from fastreid_clip3d.body.synthetic_writer import SyntheticSet
from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.common import files as atomic
from fastreid_clip3d.errors import ClearError

SMALL = {"bodies": 12, "poses_per_body": 2, "image_size": (32, 16)}


@pytest.fixture(scope="module", autouse=True)
def small_population():
    """Thresholds from a few bodies: here they only have to be the same ones everywhere."""
    patch = pytest.MonkeyPatch()
    full = descriptors.population_statistics
    patch.setattr(population_descriptors, "population_statistics", lambda model: full(model, count=21))
    yield
    patch.undo()


def make(folder: Path, workers: int = 1, **changes) -> None:
    SyntheticSet(folder, SyntheticSettings(**{**SMALL, **changes}), workers=workers).make(progress=False)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_population) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "whole"
    make(folder)
    return folder


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """A set of one's own to damage."""
    folder = tmp_path / "copy"
    for name, data in files(made).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_the_index_describes_the_pictures(made):
    index = read_index(made)
    assert len(index) == 24 == len(list((made / "images").iterdir())) and index.image_size == (32, 16)
    assert sorted(files(made))[-2:] == ["index.npz", "meta.json"] and len(files(made)) == 26
    picture = cv2.imread(index.paths[5], cv2.IMREAD_UNCHANGED)
    assert picture.shape == (32, 16) and picture.dtype == np.uint8
    assert picture[0, 0] == 255 and 0.1 < (picture < 250).mean() < 0.9
    assert index.gender.tolist() == [0, 0, 1, 1] * 6
    assert index.betas.shape == (24, 10) and index.poses.shape == (24, 72)
    assert (index.betas[0::2] == index.betas[1::2]).all() and np.unique(index.betas, axis=0).shape[0] == 12
    assert (index.poses[0::2] != index.poses[1::2]).any(1).all()
    assert len(np.unique(index.cameras[:, 0])) == len(np.unique(index.lights[:, 0])) == 24
    assert index.meta["seed" if "seed" in index.meta else "settings"]["seed"] == 0
    assert index.meta["body_models"]["male"] == load_body_model(gender="male").fingerprint()


def test_descriptors_are_those_of_the_true_shape(made):
    index = read_index(made)
    for code, gender in enumerate(("female", "male")):
        rows = index.gender == code
        model = load_body_model(gender=gender)
        scores = descriptors.describe(model.shape(torch.from_numpy(index.betas[rows])), model).numpy()
        np.testing.assert_allclose(index.scores[rows], scores, rtol=1e-4, atol=1e-5)
        above = index.scores[rows] > np.array(index.meta["thresholds"][gender], dtype=np.float32)
        assert (index.phrase_choices[rows] == np.where(above, 0, 1)).all()
    assert index.phrase_choices.dtype == np.int64 and 0.2 < index.phrase_choices.mean() < 0.8
    assert len(index.meta["population"]["female"]["standard_deviation"]) == 16


def test_same_settings_same_bytes_and_another_seed_another_set(made, tmp_path):
    make(tmp_path / "again", workers=3)
    assert files(tmp_path / "again") == files(made)
    make(tmp_path / "seed", seed=1)
    assert read_index(tmp_path / "seed").version != read_index(made).version
    assert (read_index(tmp_path / "seed").betas != read_index(made).betas).any(1).all()
    make(tmp_path / "fixed", framing="fixed")
    pictures, others = files(made), files(tmp_path / "fixed")
    assert all(pictures[name] != others[name] for name in pictures if name.endswith(".png"))


def test_a_finished_set_is_left_alone(copy, monkeypatch):
    monkeypatch.setattr(SyntheticSet, "_make_group", None)
    monkeypatch.setattr(synthetic_writer, "write_atomically", None)
    before = files(copy)
    make(copy)
    assert files(copy) == before


def test_a_killed_run_is_completed(tmp_path):
    """Kills the tool itself in the middle, then goes on: the bytes are those of an undisturbed run."""
    folder, bodies = tmp_path / "killed", 30
    command = [sys.executable, "-m", "fastreid_clip3d", "render-bodies", "--output", str(folder), "--workers", "1"]
    command += ["--bodies", str(bodies), "--poses-per-body", "2", "--size", "32", "16", "--quiet"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.time() + 120
    while time.time() < deadline and len(list(folder.glob("images/*.png"))) < 14:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 14 <= len(list(folder.glob("images/*.png"))) < 2 * bodies
    with pytest.raises(ClearError, match="not finished"):
        read_index(folder)
    left_over = folder / "images" / f".00025_00.png.{atomic._MACHINE}-{process.pid}-0.partial"
    left_over.write_bytes(b"half")
    kept = next((folder / "images").glob("00000_00.png"))
    before = kept.stat().st_mtime_ns
    make(folder, bodies=bodies)
    assert kept.stat().st_mtime_ns == before  # finished groups are not made again
    make(tmp_path / "undisturbed", bodies=bodies)
    assert files(folder) == files(tmp_path / "undisturbed")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_full_disk_is_one_message_and_the_next_run_completes(made, tmp_path, monkeypatch, code):
    folder, replace, count = tmp_path / "full", os.replace, [0]

    def failing(source: Path, target: Path) -> None:
        count[0] += 1
        if count[0] > 9:
            raise OSError(code, os.strerror(code))
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(ClearError, match="cannot be written" if code == errno.EACCES else "disk is full") as error:
        make(folder, workers=2)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert not list(folder.rglob("*.partial")) and 1 < len(files(folder)) < 26
    make(folder)
    assert files(folder) == files(made)


def test_too_little_space_is_reported_before_the_work(tmp_path, monkeypatch):
    usage = synthetic_writer.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(synthetic_writer.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ClearError, match="MiB are free"):
        make(tmp_path / "set")
    assert not list((tmp_path / "set").glob("images/*.png"))


def test_two_runs_do_not_write_one_set(copy, monkeypatch):
    (copy / "images" / "00000_00.png").unlink()

    def second_run(self, waiting, progress):
        with pytest.raises(ClearError, match=f"in use: process {os.getpid()} "):
            make(copy)
        raise KeyboardInterrupt  # ends the first run, which has rendered nothing

    monkeypatch.setattr(SyntheticSet, "_render_all", second_run)
    with pytest.raises(KeyboardInterrupt):
        make(copy)
    monkeypatch.undo()
    make(copy)


def test_another_configuration_is_refused_and_named(copy):
    before = files(copy)
    for change, words in (({"seed": 3}, "seed was 0, now 3"), ({"framing": "fixed"}, "framing was crop, now fixed")):
        with pytest.raises(ClearError, match=words):
            make(copy, **change)
    with pytest.raises(ClearError, match="bodies was 12, now 13"):
        make(copy, bodies=13)
    assert files(copy) == before


def test_a_folder_of_other_pictures_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"x")
    with pytest.raises(ClearError, match="no meta.json"):
        make(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "short", "index", "index cut", "index flipped", "index method"])
def test_damage_is_reported_and_the_next_run_repairs_it(made, copy, damage):
    victim = copy / ("index.npz" if "index" in damage else "images/00004_01.png")
    if damage in ("missing", "index"):
        victim.unlink()
    elif damage == "index flipped":
        whole = victim.read_bytes()
        start = whole.index(b"betas.npy") + 40  # within the deflated array
        victim.write_bytes(
            whole[:start] + bytes(byte ^ 255 for byte in whole[start : start + 64]) + whole[start + 64 :]
        )
    elif damage == "index method":
        whole = victim.read_bytes()
        entry = whole.index(b"PK\1\2")  # the list of the archive's members; a method is at byte 10 of an entry
        victim.write_bytes(whole[: entry + 10] + b"\x63" + whole[entry + 11 :])
    else:
        victim.write_bytes(victim.read_bytes()[:-20])
    words = {"missing": r"1 of 24 pictures.*missing \(1\)", "short": r"cut short \(1\)", "index": "is missing"}
    with pytest.raises(ClearError, match=words.get(damage, "is damaged")):
        read_index(copy)
    other = copy / "images" / "00011_00.png"
    before = other.stat().st_mtime_ns
    make(copy)
    assert files(copy) == files(made)
    if "index" not in damage:
        assert other.stat().st_mtime_ns == before  # only the group of the lost picture is made again


def test_an_index_with_other_arrays_is_refused(copy):
    with np.load(copy / "index.npz") as file:
        arrays = dict(file)
    np.savez(copy / "index.npz", **{**arrays, "betas": arrays["betas"][:-1]})
    with pytest.raises(ClearError, match=r"betas .* \[23, 10\], wanted \[24, 'K'\]"):
        read_index(copy)
    del arrays["scores"]
    np.savez(copy / "index.npz", **arrays)
    with pytest.raises(ClearError, match="lacks scores"):
        read_index(copy)


def foreign_descriptions() -> list[dict]:
    whole = {"version": "1", "complete": True, "num_images": 24, "settings": {"image_size": [32, 16]}}
    changes = [{"settings": {}}, {"settings": 3}, {"settings": {"image_size": "32"}}, {"num_images": "24"}]
    return [{**whole, **change} for change in changes]


@pytest.mark.parametrize(
    "content", ["{", "[]", "5", "null", '"text"', '{"version": "1"}', *map(json.dumps, foreign_descriptions())]
)
def test_a_foreign_meta_json_is_refused(copy, content):
    (copy / "meta.json").write_text(content)
    with pytest.raises(ClearError, match="meta.json"):
        read_index(copy)


def test_a_missing_set_is_reported_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(ClearError, match="clip3d render-bodies --output"):
        read_index(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bodies": 0}, "bodies is 0"),
        ({"poses_per_body": 0}, "poses_per_body is 0"),
        ({"image_size": (4, 4)}, r"image size \(4, 4\)"),
        ({"seed": -1}, "seed -1"),
        ({"framing": "wide"}, "wide"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ClearError, match=message):
        SyntheticSettings(**change)


def test_own_poses_decide_the_version(made, tmp_path):
    np.save(tmp_path / "poses.npy", np.zeros((3, 72), np.float32))
    settings = SyntheticSettings(**SMALL, poses=str(tmp_path / "poses.npy"))
    own = SyntheticSet(tmp_path / "own", settings)
    assert own.version != read_index(made).version
    assert sorted(own.pose_rows(0).tolist()) != [0, 0] and set(own.pose_rows(1).tolist()) <= {0, 1, 2}


def test_the_tool_makes_a_set_in_the_folder_of_the_datasets(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    run_verb(
        ["render-bodies", "--bodies", "12", "--poses-per-body", "2", "--size", "32", "16", "--workers", "1", "--quiet"]
    )
    assert files(tmp_path / "SyntheticBodies") == files(made)
    assert read_index(made).version in capsys.readouterr().out
    with pytest.raises(ClearError, match="image size"):
        run_verb(["render-bodies", "--size", "2", "2"])
