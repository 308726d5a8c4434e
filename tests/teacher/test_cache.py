from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fastreid_clip3d.data.training_set import RealImages, collate
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher import TeacherCache, build_cache, load_teacher
from fastreid_clip3d.teacher.cache import CacheError
from fastreid_clip3d.teacher.cache import build as cache_build
from fastreid_clip3d.teacher.guidance import Guidance

from .conftest import write_model

REPOSITORY = Path(__file__).resolve().parents[2]


def build(pictures, teacher, folder, **options):
    return build_cache(pictures, teacher, folder, **{"images_per_shard": 4, "batch": 3, "progress": False, **options})


def change(path: str, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 24, 3), dtype=np.uint8)).save(path)


def test_cached_is_online(pictures, teacher, tmp_path):
    assert build(pictures, teacher, tmp_path / "cache") == (3, 0, 0, 9)
    answers = TeacherCache(tmp_path / "cache")
    assert len(answers) == 9
    torch.testing.assert_close(answers.phrase_table, teacher.phrase_table)
    for path in pictures:
        for flipped in (False, True):
            image = Image.open(path)
            seen = teacher.preprocess(ImageOps.mirror(image) if flipped else image)
            features, scores, choices = (part[0] for part in teacher.label_images(seen[None]))
            found, found_choices = answers.lookup(path, flipped)
            assert found.dtype == torch.float32 and found_choices.dtype == torch.int64
            torch.testing.assert_close(found, features, atol=1e-5, rtol=1e-3)
            assert torch.equal(found_choices, choices)
            torch.testing.assert_close(answers.scores(path, flipped), scores, atol=1e-3, rtol=0)
    assert not torch.equal(answers.lookup(pictures[0], False)[0], answers.lookup(pictures[0], True)[0])


def test_choices_come_from_full_precision_scores(pictures, teacher, tmp_path, monkeypatch):
    """Scores that float16 cannot tell apart keep their decision."""
    near = torch.full((1, 32), 0.3)
    near[:, 0::2] += 1e-6

    def answer(images):
        return (
            torch.ones(len(images), 24),
            near.expand(len(images), -1),
            torch.zeros(len(images), 16, dtype=torch.int64),
        )

    monkeypatch.setattr(teacher, "label_images", answer, raising=False)
    build(pictures, teacher, tmp_path / "cache")
    answers = TeacherCache(tmp_path / "cache")
    scores = answers.scores(pictures[0])
    assert torch.equal(scores[0::2], scores[1::2])
    assert answers.lookup(pictures[0])[1].tolist() == [0] * 16


def test_a_second_run_keeps_everything_and_order_does_not_matter(pictures, teacher, tmp_path):
    build(pictures, teacher, tmp_path / "cache")
    before = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    assert build([*reversed(pictures), pictures[0]], teacher, tmp_path / "cache", num_workers=1) == (0, 3, 0, 9)
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()} == before


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "sidecar", "list"])
def test_a_damaged_shard_is_named_and_only_it_is_made_again(harm, pictures, teacher, tmp_path):
    folder = tmp_path / "cache"
    build(pictures, teacher, folder)
    shard = folder / "shard-00001.npy"
    whole = shard.read_bytes()
    if harm == "flip":
        shard.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    elif harm == "cut":
        shard.write_bytes(whole[:-100])
    elif harm == "remove":
        shard.unlink()
    elif harm == "list":
        sidecar = json.loads(shard.with_suffix(".json").read_text())
        shard.with_suffix(".json").write_text(json.dumps({**sidecar, "images": list(sidecar["images"])}))
    else:
        shard.with_suffix(".json").write_text("{")
    with pytest.raises(CacheError, match="shard-00001 is (damaged|missing)") as caught:
        TeacherCache(folder)
    assert "shard-00000" not in str(caught.value) and "clip3d cache-teacher" in str(caught.value)
    assert build(pictures, teacher, folder) == (1, 2, 0, 9)
    assert shard.read_bytes() == whole
    assert len(TeacherCache(folder)) == 9


def test_a_changed_image_is_noticed_and_only_its_shard_is_made_again(pictures, teacher, tmp_path):
    folder = tmp_path / "cache"
    build(pictures, teacher, folder)
    assert TeacherCache(folder).verify(teacher.fingerprint, pictures, content=True) == []
    change(pictures[5], seed=77)
    (told,) = TeacherCache(folder).verify(teacher.fingerprint, pictures)
    assert "1 images changed" in told and "05.png" in told
    old = TeacherCache(folder).lookup(pictures[5])[0]
    assert build(pictures, teacher, folder) == (1, 2, 0, 9)
    assert not torch.equal(TeacherCache(folder).lookup(pictures[5])[0], old)


def test_a_touched_image_with_the_same_content_is_no_change(pictures, teacher, tmp_path):
    build(pictures, teacher, tmp_path / "cache")
    os.utime(pictures[2], (1, 1))
    assert TeacherCache(tmp_path / "cache").verify(teacher.fingerprint, pictures) == []
    assert build(pictures, teacher, tmp_path / "cache").computed == 0


def test_a_change_behind_the_same_size_and_time_is_found_by_content(pictures, teacher, tmp_path):
    build(pictures, teacher, tmp_path / "cache")
    status = os.stat(pictures[3])
    data = bytearray(Path(pictures[3]).read_bytes())
    data[-1] ^= 1
    Path(pictures[3]).write_bytes(bytes(data))
    os.utime(pictures[3], ns=(status.st_atime_ns, status.st_mtime_ns))
    answers = TeacherCache(tmp_path / "cache")
    assert answers.verify(paths=pictures) == []
    assert "03.png" in answers.verify(paths=pictures, content=True)[0]


def test_new_and_lost_images_are_reported(pictures, teacher, tmp_path):
    build(pictures[:-1], teacher, tmp_path / "cache")
    answers = TeacherCache(tmp_path / "cache")
    assert answers.missing(pictures) == [pictures[-1]]
    assert "08.png" in answers.verify(paths=pictures)[0]
    with pytest.raises(CacheError, match="08.png"):
        answers.lookup(pictures[-1])
    Path(pictures[0]).unlink()
    assert "no longer exist" in answers.verify()[0] and "00.png" in answers.verify()[0]
    with pytest.raises(CacheError, match="no longer exist.* restore the images, or, .* for the others"):
        answers.require()
    assert len(pictures[1:]) == build(pictures[1:], teacher, tmp_path / "cache").images
    assert TeacherCache(tmp_path / "cache").verify(paths=pictures[1:]) == []


def test_another_teacher_is_refused_without_rebuild(pictures, teacher, tmp_path):
    folder = tmp_path / "cache"
    build(pictures, teacher, folder)
    other = load_teacher(f"local-dir:{write_model(tmp_path / 'other', seed=5, std=[0.1, 0.1, 0.1])}", resize="pad")
    changes = TeacherCache(folder).verify(other.fingerprint, ())
    assert len(changes) == 3
    assert "weights" in changes[0] and "resize was squash, is pad" in changes[1] and "std" in changes[2]
    with pytest.raises(CacheError, match="To mend it, run `clip3d cache-teacher --rebuild`") as caught:
        TeacherCache(folder).require(other.fingerprint, ())
    assert "keeps the rest" not in str(caught.value)
    with pytest.raises(CacheError, match="--rebuild"):
        build(pictures, other, folder)
    assert len(TeacherCache(folder).verify(teacher.fingerprint, ())) == 0
    assert build(pictures, other, folder, rebuild=True) == (3, 0, 0, 9)
    assert TeacherCache(folder).verify(other.fingerprint, pictures) == []


def test_other_prompts_are_refused_and_other_versions_only_logged(pictures, teacher, tmp_path, caplog):
    build(pictures, teacher, tmp_path / "cache")
    path = tmp_path / "cache" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["fingerprint"]["prompts"][4] = "A person, old wording."
    manifest["fingerprint"]["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(manifest))
    (told,) = TeacherCache(tmp_path / "cache").verify(teacher.fingerprint, ())
    assert "1 prompts changed" in told and "old wording" in told
    assert "1.0" in caplog.text


def test_the_folder_of_the_images_may_move(pictures, teacher, tmp_path):
    build(pictures, teacher, tmp_path / "cache")
    expected = TeacherCache(tmp_path / "cache").lookup(pictures[4])[0]
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    answers = TeacherCache(tmp_path / "cache", root=tmp_path / "elsewhere")
    assert torch.equal(answers.lookup(tmp_path / "elsewhere" / "04.png")[0], expected)
    assert answers.verify() == []


def test_the_folder_of_the_datasets_may_move(pictures, teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "images"))
    build(pictures, teacher, tmp_path / "cache", root=str(tmp_path / "images"))
    expected = TeacherCache(tmp_path / "cache").lookup(pictures[4])[0]
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "elsewhere"))
    moved = [path.replace("images", "elsewhere") for path in pictures]
    answers = TeacherCache(tmp_path / "cache")
    assert torch.equal(answers.lookup(moved[4])[0], expected) and answers.verify(paths=moved) == []
    Path(moved[0]).rename(tmp_path / "set aside")  # a lost image does not hide the others
    assert TeacherCache(tmp_path / "cache").missing(moved) == []
    (tmp_path / "set aside").rename(moved[0])
    assert build(moved, teacher, tmp_path / "cache", root=str(tmp_path / "elsewhere")) == (0, 3, 0, 9)
    # The cache of a copy that is still there is found where FASTREID_DATASETS names another folder.
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    assert torch.equal(TeacherCache(tmp_path / "cache").lookup(moved[4])[0], expected)


def test_rows_that_are_kept_keep_the_precision_they_were_computed_in(pictures, teacher, tmp_path, monkeypatch):
    build(pictures, teacher, tmp_path / "cache")
    exact = teacher.fingerprint
    monkeypatch.setattr(teacher, "fingerprint", dataclasses.replace(exact, precision="bf16"))
    assert build(pictures, teacher, tmp_path / "cache") == (0, 3, 0, 9)
    assert TeacherCache(tmp_path / "cache").verify(exact, pictures) == []
    change(pictures[0], seed=7)
    assert build(pictures, teacher, tmp_path / "cache") == (1, 2, 0, 9)
    (changed,) = TeacherCache(tmp_path / "cache").verify(exact, pictures)
    assert "computed in bf16" in changed


@pytest.mark.parametrize("table", [b"", np.zeros((3, 2), np.float32), np.full((32, 24), np.nan, np.float32)])
def test_a_phrase_table_that_is_none_is_refused_and_made_again(table, pictures, teacher, tmp_path):
    build(pictures, teacher, tmp_path / "cache")
    path = tmp_path / "cache" / "phrase_table.npy"
    path.write_bytes(table) if isinstance(table, bytes) else np.save(path, table)
    with pytest.raises(CacheError, match="phrase_table.npy is .* run `clip3d cache-teacher` again"):
        TeacherCache(tmp_path / "cache")
    assert build(pictures, teacher, tmp_path / "cache") == (0, 3, 0, 9)
    assert TeacherCache(tmp_path / "cache").verify(teacher.fingerprint, pictures) == []


def test_a_rank_that_keeps_all_its_rows_does_not_undo_the_precision_of_another(
    pictures, teacher, tmp_path, monkeypatch
):
    build(pictures, teacher, tmp_path / "cache")
    exact = teacher.fingerprint
    monkeypatch.setattr(teacher, "fingerprint", dataclasses.replace(exact, precision="bf16"))
    change(pictures[0], seed=7)
    fits = cache_build._shard_fits

    def other_rank_first(folder, shard, *arguments):
        """While rank 1 of 2 looks at its shard, rank 0 computes another one."""
        monkeypatch.setattr(cache_build, "_shard_fits", fits)
        assert build(pictures, teacher, folder, rank=0, world_size=2).computed == 1
        return fits(folder, shard, *arguments)

    monkeypatch.setattr(cache_build, "_shard_fits", other_rank_first)
    assert build(pictures, teacher, tmp_path / "cache", rank=1, world_size=2) == (0, 1, 0, 9)
    (changed,) = TeacherCache(tmp_path / "cache").verify(exact, pictures)
    assert "computed in bf16" in changed


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"format": 0}, "--rebuild"),
        ({"fingerprint": {}}, "--rebuild"),
        ({"fingerprint": []}, "--rebuild"),
        ({"embed_dim": "24"}, "--rebuild"),
        ({"num_shards": None}, "--rebuild"),
        ({"root": 3}, "--rebuild"),
    ],
)
def test_a_manifest_of_another_kind_names_the_command_that_helps(change, remedy, pictures, teacher, tmp_path):
    build(pictures, teacher, tmp_path / "cache")
    path = tmp_path / "cache" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CacheError, match=remedy):
        TeacherCache(tmp_path / "cache")
    assert build(pictures, teacher, tmp_path / "cache", rebuild=True) == (3, 0, 0, 9)


def test_workers_can_hold_it(pictures, teacher, tmp_path):
    build(pictures, teacher, tmp_path / "cache")
    answers = TeacherCache(tmp_path / "cache")
    first = answers.lookup(pictures[0])[0]
    data = pickle.dumps(answers)
    assert torch.equal(pickle.loads(data).lookup(pictures[0])[0], first)


def test_a_full_disk_is_reported_before_the_work(pictures, teacher, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache_build.shutil, "disk_usage", lambda folder: usage(10**6, 10**6 - 1000, 1000))
    monkeypatch.setattr(cache_build, "compute_shards", lambda *arguments: pytest.fail("it began to work"))
    with pytest.raises(CacheError, match="MiB free"):
        build(pictures, teacher, tmp_path / "cache")


def test_the_needed_space_counts_the_shards_of_all_ranks(pictures, teacher, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cache_build, "_require_space", lambda folder, images, width: asked.append(images))
    build(pictures, teacher, tmp_path / "cache", images_per_shard=1, rank=0, world_size=3)
    assert asked == [9]


def test_a_batch_with_mirror_images_is_the_same_cached_and_online(pictures, teacher, tmp_path):
    """As training reads it: the same side for student and teacher, whichever side chance takes."""
    build(pictures, teacher, tmp_path / "cache")
    records = [(path, number, 0) for number, path in enumerate(pictures)]
    guides = {
        "online": (Guidance(teacher.phrase_table, teacher=teacher), {"teacher_transform": teacher.image_transform}),
        "cached": (
            Guidance(teacher.phrase_table, cache=TeacherCache(tmp_path / "cache")),
            {"teacher_answers": TeacherCache(tmp_path / "cache")},
        ),
    }
    answers, sides = {}, {}
    for name, (guidance, given) in guides.items():
        torch.manual_seed(1)
        images = RealImages(records, lambda image: torch.from_numpy(np.array(image)), 0.5, **given)
        batch = collate([images[number] for number in range(len(images))])
        answers[name], sides[name] = guidance.answers_for(batch), batch["images"]
    assert torch.equal(sides["online"], sides["cached"])
    mirrored = [not np.array_equal(side, Image.open(path)) for side, path in zip(sides["cached"], pictures)]
    assert 0 < sum(mirrored) < len(pictures)
    torch.testing.assert_close(answers["cached"][0], answers["online"][0], atol=1e-5, rtol=1e-3)
    assert torch.equal(answers["cached"][1], answers["online"][1])


def test_the_needed_space_is_enough(pictures, teacher, tmp_path):
    build(pictures, teacher, tmp_path / "cache")
    used = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert used <= cache_build.cache_bytes(len(pictures), teacher.embed_dim) < used + 100_000


def test_broken_and_missing_images_are_named(pictures, teacher, tmp_path):
    with pytest.raises(ClearError, match="gone.png"):
        build([*pictures, str(tmp_path / "images" / "gone.png")], teacher, tmp_path / "cache")
    Path(pictures[6]).write_bytes(Path(pictures[6]).read_bytes()[:200])
    with pytest.raises(ClearError, match="06.png"):
        build(pictures, teacher, tmp_path / "cache", num_workers=1)
    change(pictures[6], seed=8)
    assert build(pictures, teacher, tmp_path / "cache") == (2, 1, 0, 9)


def test_no_cache_says_how_to_make_one(tmp_path):
    with pytest.raises(CacheError, match="clip3d cache-teacher"):
        TeacherCache(tmp_path / "nothing")


SCRIPT = """
import os, sys, time
from fastreid_clip3d.teacher import build_cache, load_teacher
from fastreid_clip3d.teacher.cache import compute
folder, output, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
images = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
write = compute.write_shard
def slow(*arguments):
    time.sleep(pause)
    write(*arguments)
compute.write_shard = slow
result = build_cache(images, load_teacher("local-dir:" + sys.argv[4]), output, images_per_shard=2, progress=False,
                     rank=int(os.getenv("RANK", "0")), world_size=int(os.getenv("WORLD_SIZE", "1")))
print(*result)
"""


def start(tmp_path, model_folder, pause: float = 0.0, **environment: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        str(tmp_path / "images"),
        str(tmp_path / "cache"),
        str(pause),
        str(model_folder),
    ]
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}, stdout=subprocess.PIPE, text=True
    )


def test_a_kill_loses_at_most_the_shard_at_hand(pictures, teacher, model_folder, tmp_path):
    process = start(tmp_path, model_folder, pause=1.0)
    deadline = time.monotonic() + 60
    while not (tmp_path / "cache" / "shard-00001.json").is_file():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(CacheError, match="3 of 5 shards"):
        TeacherCache(tmp_path / "cache")
    assert build(pictures, teacher, tmp_path / "cache", images_per_shard=2) == (3, 2, 0, 9)


def test_two_processes_share_the_shards(pictures, teacher, model_folder, tmp_path):
    ranks = [start(tmp_path, model_folder, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    printed = [process.communicate(timeout=120)[0].split() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert [(row[0], row[1], row[3]) for row in printed] == [("3", "0", "9"), ("2", "0", "9")]
    answers = TeacherCache(tmp_path / "cache")
    assert answers.verify(teacher.fingerprint, pictures, content=True) == []
    build(pictures, teacher, tmp_path / "alone", images_per_shard=2)
    for path in pictures:
        torch.testing.assert_close(answers.lookup(path, True), TeacherCache(tmp_path / "alone").lookup(path, True))
