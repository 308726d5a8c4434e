"""Long work that is killed at every moment, and goes on to the same result."""

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
from PIL import Image

from fastreid_clip3d.common import files
from fastreid_clip3d.common.resumable import Journal, OtherWork, Parts, begin, differences
from fastreid_clip3d.data.blur_faces import blur_folder
from fastreid_clip3d.data.face_detector import Face
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference import features_writer
from fastreid_clip3d.inference.collection import extract_to_file
from fastreid_clip3d.inference.pictures import list_images
from tests.common.kills import files_of, kill_everywhere
from tests.conftest import REPOSITORY


def test_a_header_is_written_once_and_compared(tmp_path: Path) -> None:
    work = {"seed": 1, "size": (2, 3), "nested": {"a": 1}}
    assert begin(tmp_path / "new" / "set", "work.json", work) is False
    assert begin(tmp_path / "new" / "set", "work.json", work) is True
    with pytest.raises(OtherWork, match="other settings .seed was 1, now 2; nested.a was 1, now None.. Choose a new"):
        begin(tmp_path / "new" / "set", "work.json", {"seed": 2, "size": [2, 3], "nested": {}})
    (tmp_path / "new" / "set" / "work.json").write_text("[")
    with pytest.raises(OtherWork, match="work.json cannot be read.*Remove it"):
        begin(tmp_path / "new" / "set", "work.json", work)


def test_a_folder_of_somebody_else_is_refused_and_own_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("of a run that was killed before its header")
    (tmp_path / f".work.json.{files._MACHINE}-1-0.partial").write_text("{")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ClearError, match="has other contents .thesis.txt"):
        begin(tmp_path, "work.json", {}, own=("log.csv",))
    (tmp_path / "thesis.txt").unlink()
    assert begin(tmp_path, "work.json", {}, own=("log.csv",)) is False
    assert not (tmp_path / "log.csv").exists()


def test_differences_are_named_by_key() -> None:
    assert list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4})) == [
        "a.c was 2, now 3",
        "d was None, now 4",
    ]


def test_a_part_is_done_with_its_record_and_all_its_files(tmp_path: Path) -> None:
    parts = Parts(tmp_path, "parts", "v1")
    (tmp_path / "a.png").write_bytes(b"12345")
    assert not parts.is_done("one")
    parts.finish("one", {"a.png": 5})
    assert parts.is_done("one") and parts.sizes("one") == {"a.png": 5}
    assert not Parts(tmp_path, "parts", "v2").is_done("one")
    (tmp_path / "a.png").write_bytes(b"1234")
    assert not parts.is_done("one")
    (tmp_path / "a.png").unlink()
    assert not parts.is_done("one")
    for damage in ("", "{}", "[]", '{"version": "v1", "sizes": 3}'):
        (tmp_path / "parts" / "one.json").write_text(damage)
        assert not parts.is_done("one"), damage


@pytest.mark.parametrize("tail", [b"", b"thr", b"not valid\nfour\n"])
def test_a_journal_forgets_what_a_kill_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "done"
    path.write_bytes(b"one\ncaf\xe9\n" + tail)
    journal = Journal(path, lambda line: line != "not valid")
    assert journal.lines == ["one", os.fsdecode(b"caf\xe9")]
    journal.append("three")
    journal.close()
    assert path.read_bytes() == b"one\ncaf\xe9\nthree\n"


# -- every moment ----------------------------------------------------------------------------------------------------


def red_is_a_face(image: np.ndarray) -> list[Face]:
    return [Face(4, 4, 12, 12, 0.9)] if image[0, 0, 0] > 200 else []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number, colour in enumerate([(250, 0, 0), (0, 250, 0), (250, 9, 9)]):
        path = tmp_path / "source" / "train" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 32), colour).save(path)
    (tmp_path / "source" / "list.txt").write_text("0.jpg\n")
    return tmp_path / "source"


def next_program() -> None:
    """What this process remembers of its folders is forgotten, as in a new one."""
    files._swept.clear()


def test_blur_faces_goes_on_after_a_kill_at_every_moment(source: Path, tmp_path: Path) -> None:
    blur_folder(source, tmp_path / "whole", red_is_a_face, progress=False)
    expected = files_of(tmp_path / "whole")
    target = tmp_path / "blur"

    def goes_on(number: int) -> None:
        next_program()
        rest = target.rename(tmp_path / f"rest{number}") if target.exists() else tmp_path / f"rest{number}"
        assert not any(content != expected[name] for name, content in files_of(rest).items() if name.endswith(".jpg"))
        report = blur_folder(source, rest, red_is_a_face, progress=False)
        assert list(report.faces.values()) == [1, 0, 1] and files_of(rest) == expected, number

    assert kill_everywhere(lambda: blur_folder(source, target, red_is_a_face, progress=False), goes_on) > 20


class Brightness:
    """A model whose feature is an image's mean colour."""

    feature_dim, fingerprint, size = 3, "brightness", (8, 8)

    def __init__(self) -> None:
        from fastreid_clip3d.inference.preprocess import InputSize

        self.recipe = InputSize((8, 8))

    def encode(self, pixels):
        return pixels.float().mean((2, 3))


def test_extract_goes_on_after_a_kill_at_every_moment(source: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(features_writer, "_SECONDS_BETWEEN_FLUSHES", -1)
    entries = list_images([source / "train"])
    extract_to_file(Brightness(), entries, tmp_path / "whole.npz", batch_size=1)
    expected = (tmp_path / "whole.npz").read_bytes()
    place = tmp_path / "killed"
    place.mkdir()

    def goes_on(number: int) -> None:
        next_program()
        summary = extract_to_file(Brightness(), entries, place / "f.npz", batch_size=1)
        assert summary.written == 3 and not summary.started_over
        assert files_of(place) == {"f.npz": expected}, number
        (place / "f.npz").unlink()

    work = lambda: extract_to_file(Brightness(), entries, place / "f.npz", batch_size=1)  # noqa: E731
    assert kill_everywhere(work, goes_on) > 20


def test_a_second_writer_on_a_folder_is_refused(source: Path, tmp_path: Path) -> None:
    def second(image: np.ndarray) -> list[Face]:
        with pytest.raises(ClearError, match="blur is in use"):
            blur_folder(source, tmp_path / "blur", red_is_a_face, progress=False)
        return red_is_a_face(image)

    assert len(blur_folder(source, tmp_path / "blur", second, progress=False).faces) == 3


BLUR = """
import sys, time
from fastreid_clip3d.data.blur_faces import blur_folder
from tests.common.test_resumable import red_is_a_face
def slowly(image):
    time.sleep(0.01)
    return red_is_a_face(image)
blur_folder(sys.argv[1], sys.argv[2], slowly, progress=False)
"""


def test_a_program_killed_by_the_system_goes_on(source: Path, tmp_path: Path) -> None:
    for number in range(3, 40):
        Image.new("RGB", (16, 32), (250, number, 0)).save(source / "train" / f"{number}.jpg")
    target = tmp_path / "blur"
    for done in (0, 5, 17, 30):  # images after which the program is killed
        program = subprocess.Popen([sys.executable, "-c", BLUR, str(source), str(target)], cwd=REPOSITORY)
        deadline = time.time() + 120
        while time.time() < deadline and len(list(target.glob("train/*.jpg"))) < done:
            time.sleep(0.002)
        program.send_signal(signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL
    next_program()
    report = blur_folder(source, target, red_is_a_face, progress=False)
    assert report.done_before >= 30 and len(report.faces) == 40
    blur_folder(source, tmp_path / "whole", red_is_a_face, progress=False)
    assert files_of(target) == files_of(tmp_path / "whole")
    assert json.loads((target / "blur_faces.json").read_text())["source"] == "source"
