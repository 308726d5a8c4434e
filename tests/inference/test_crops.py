"""`clip3d crops` on a video of people seen from behind, and what search and make-csv make of its folders."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.data.folder_layouts import read_folder
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.crops import detectors
from fastreid_clip3d.inference.crops.box_files import Box, read_boxes
from fastreid_clip3d.inference.crops.box_sources import BoxSource, boxes_of_detector
from fastreid_clip3d.inference.crops.cut import CropReport, CropSettings, cut_crops
from fastreid_clip3d.inference.crops.detectors import ByteTracked, TorchvisionDetector, build_detector
from fastreid_clip3d.inference.crops.frames import Frame, find_footage
from tests.common.kills import files_of as all_files
from tests.common.kills import kill_everywhere
from tests.inference.footage import FRAMES, frames_and_boxes, people, write_mot, write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "walk.avi", frames_and_boxes()[0])


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    return write_mot(tmp_path / "walk.txt", frames_and_boxes()[1])


def crops(*words: object, code: int = 0) -> None:
    assert run_verb(["crops", *map(str, words)]) == code


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_each_track_becomes_a_folder_of_its_crops(video: Path, boxes: Path, tmp_path: Path) -> None:
    crops(video, "--boxes", boxes, "--output", tmp_path / "out")
    assert files_of(tmp_path / "out") == [f"{track}/{number:06}.jpg" for track in (1, 2, 3) for number in range(1, 13)]
    for track, name in ((1, "person1"), (2, "person3"), (3, "person5")):
        for number in (1, 6):
            crop = cv2.imread(str(tmp_path / "out" / str(track) / f"{number:06}.jpg"))
            assert crop.shape == (160, 64, 3)
            assert mean_difference(crop, people()[name][number % 2]) < 6  # two JPEGs lie between
            assert mean_difference(crop, people()["person2"][0]) > 20
    with open(tmp_path / "out" / "crops.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = [(int(r["frame"]), int(r["track"]), int(r["x1"]), int(r["y1"]), int(r["x2"]), int(r["y2"])) for r in rows]
    assert found == [(n, t, x, y, x + w, y + h) for n, t, x, y, w, h in frames_and_boxes()[1]]
    assert {row["score"] for row in rows} == {"0.9000"}


def test_search_and_make_csv_take_the_folders(
    video: Path, boxes: Path, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crops(video, "--boxes", boxes, "--output", tmp_path / "out")
    for track, name in ((1, "person1"), (2, "person3"), (3, "person5")):
        query = tmp_path / f"{name}.png"
        cv2.imwrite(str(query), people()[name][0])
        found, page = tmp_path / f"{name}.json", tmp_path / f"{name}.html"
        words = ["--query", query, "--gallery", tmp_path / "out", "--tracklets", "--json", found, "--html", page]
        assert run_verb(["search", "--model", str(run), "--device", "cpu", *map(str, words)]) == 0
        (answer,) = json.loads(found.read_text())["answers"]
        assert Path(answer["hits"][0]["name"]).name == str(track)
        assert len(answer["hits"]) == 3 and page.stat().st_size > 10_000
    capsys.readouterr()
    described = tmp_path / "tracks.csv"
    assert run_verb(["make-csv", str(tmp_path / "out"), "--output", str(described)]) == 0
    assert "Layout tracker: it has the file crops.csv" in capsys.readouterr().out
    with open(described, newline="") as lines:
        assert {(row["pid"], Path(row["path"]).parent.name) for row in csv.DictReader(lines)} == {
            (track, track) for track in "123"
        }


def test_every_nth_frame_margin_and_least_size(video: Path, boxes: Path, tmp_path: Path) -> None:
    options = ["--every", 5, "--margin", 0.125]
    crops(video, "--boxes", boxes, "--output", tmp_path / "out", *options)
    assert files_of(tmp_path / "out" / "2") == ["000001.jpg", "000006.jpg", "000011.jpg"]
    left, top = 20 + 150 + 4, 40 + 20
    crop = cv2.imread(str(tmp_path / "out" / "2" / "000001.jpg"))
    assert crop.shape[:2] == (160 + 2 * 20, 64 + 2 * 8)
    expected = frames_and_boxes()[0][0][top - 20 : top + 180, left - 8 : left + 72]
    assert mean_difference(crop, expected) < 6
    crops(video, "--boxes", boxes, "--output", tmp_path / "none", "--min-size", 161, 10, code=1)
    assert files_of(tmp_path / "none") == []


def test_boxes_that_become_no_crops_are_counted_by_reason(video: Path, tmp_path: Path) -> None:
    entries = [
        {"frame": 1, "id": "a.b", "xywh": [10, 20, 60, 120], "score": 0.8},
        {"frame": 1, "id": "a.b", "xyxy": [15, 20, 70, 140]},
        {"frame": 1, "xyxy": [100, 20, 160, 140]},
        {"frame": 2, "id": 7, "xyxy": [-50, 20, 60, 140]},
        {"frame": 2, "id": 8, "xyxy": [600, 20, 660, 140]},
        {"frame": 2, "id": 9, "xyxy": [0, 20, 60, 140], "score": 0.1},
        {"frame": 3, "id": 9, "xyxy": [0, 20, 10, 40]},
        {"frame": 99, "id": 9, "xyxy": [0, 20, 60, 140]},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(entries))
    report = tmp_path / "report.json"
    crops(video, "--boxes", tmp_path / "boxes.json", "--output", tmp_path / "out", "--json", report, code=1)
    assert files_of(tmp_path / "out") == ["7/000002.jpg", "a.b/000001.jpg"]
    assert cv2.imread(str(tmp_path / "out/7/000002.jpg")).shape == (120, 60, 3)
    written = json.loads(report.read_text())
    assert written["left_out"] == {
        "a second box of its track in the same frame": 1,
        "in no track": 1,
        "outside the frame": 1,
        "score below 0.5": 1,
        "smaller than 48 x 16 pixels": 1,
    }
    assert written["frames"] == FRAMES and "behind frame 12" in written["unreadable"][0]


def test_without_tracks_and_with_several_videos(video: Path, tmp_path: Path) -> None:
    other = write_video(tmp_path / "door.avi", frames_and_boxes(("person2",))[0][:2])

    def detect(frame: np.ndarray) -> list[Box]:
        return [Box(10, 20, 60, 140, 0.9, "4")]

    footage = find_footage([video, other])
    report = cut_crops([(one, boxes_of_detector(detect)) for one in footage], tmp_path / "out")
    assert report.tracks == {"walk/4": FRAMES, "door/4": 2}
    assert {(p.person, p.camera) for p in read_folder(tmp_path / "out").pictures} == {
        ("walk_4", "walk"),
        ("door_4", "door"),
    }
    untracked = boxes_of_detector(lambda frame: [Box(10, 20, 60, 140, 0.9)] * 2)
    cut_crops([(find_footage([other])[0], untracked)], tmp_path / "loose", tracks_wanted=False)
    names = [f"untracked/00000{frame}_{box}.jpg" for frame in (1, 2) for box in (0, 1)]
    assert files_of(tmp_path / "loose") == names
    with pytest.raises(ClearError, match="nobody knows who it is"):
        read_folder(tmp_path / "loose")


# -- after a kill ----------------------------------------------------------------------------------------------------


class Following:
    """A detector with a tracker: the boxes of each frame that it sees carry the number of this frame."""

    def __init__(self, dies_at: int = 0) -> None:
        self.found, self.joined, self.dies_at = 0, 0, dies_at

    def find(self, frame: Frame) -> list[Box]:
        self.found += 1
        if frame.number == self.dies_at:
            raise KeyboardInterrupt
        return [Box(10.25, 20, 60, 140, 0.9), Box(80, 20, 130, 140.5, 1 / 3)]

    def join(self, boxes: list[Box]) -> list[Box]:
        self.joined += 1
        return [box._replace(track=f"{place}.{(self.joined + 1) // 2}") for place, box in enumerate(boxes)]

    def source(self, has_memory: bool = False) -> BoxSource:
        return BoxSource(self.find, self.join, has_memory)


def test_killed_anywhere_it_goes_on_to_the_same_folder(tmp_path: Path) -> None:
    film = write_video(tmp_path / "short.avi", frames_and_boxes()[0][:3])
    settings, folder = CropSettings(min_score=0.2), tmp_path / "out"

    def work() -> CropReport:
        return cut_crops([(find_footage([film])[0], Following().source())], folder, settings)

    expected_report = work().as_json()
    expected = all_files(folder)
    assert len(files_of(folder)) == 6 and set(expected) == {*files_of(folder), "crops.csv", "crops.json", "crops.jsonl"}
    shutil.rmtree(folder)

    def check_rest(number: int) -> None:
        assert work().as_json() == expected_report
        assert all_files(folder) == expected, number
        shutil.rmtree(folder)

    assert kill_everywhere(work, check_rest, every=3) > 10


@pytest.mark.parametrize("has_memory", [False, True])
def test_frames_that_are_done_are_not_searched_again(video: Path, tmp_path: Path, has_memory: bool) -> None:
    def cut(boxes: Following, folder: str) -> CropReport:
        source = boxes.source(has_memory)
        return cut_crops([(find_footage([video])[0], source)], tmp_path / folder, CropSettings(min_score=0.2))

    with pytest.raises(KeyboardInterrupt):
        cut(Following(dies_at=6), "out")
    first = tmp_path / "out" / "0.1" / "000001.jpg"
    first_written = first.stat().st_mtime_ns
    (tmp_path / "out" / "0.1" / "000002.jpg").write_bytes(b"")  # what a power failure leaves
    again = Following()
    report, undisturbed = cut(again, "out"), cut(Following(), "whole")
    assert again.found == (FRAMES if has_memory else FRAMES - 5)
    assert all_files(tmp_path / "out") == all_files(tmp_path / "whole") and report.tracks == undisturbed.tracks
    assert first.stat().st_mtime_ns == first_written


def test_a_folder_of_other_settings_is_refused_with_the_difference(video: Path, boxes: Path, tmp_path: Path) -> None:
    crops(video, "--boxes", boxes, "--output", tmp_path / "out")
    before = all_files(tmp_path / "out")
    crops(video, "--boxes", boxes, "--output", tmp_path / "out")
    for words, message in (
        (["--margin", "0.1"], r"begun with other settings \(settings.margin was 0.0, now 0.1\)"),
        (["--no-tracks"], r"\(tracks_wanted was True, now False\)"),
    ):
        with pytest.raises(ClearError, match=message):
            crops(video, "--boxes", boxes, "--output", tmp_path / "out", *words)
    boxes.write_text(boxes.read_text().splitlines()[0] + "\n")
    with pytest.raises(ClearError, match="footage.walk.boxes.signature was"):
        crops(video, "--boxes", boxes, "--output", tmp_path / "out")
    assert all_files(tmp_path / "out") == before


def test_a_folder_without_any_frame_takes_the_mended_video(video: Path, boxes: Path, tmp_path: Path) -> None:
    broken = tmp_path / "film" / "walk.avi"
    broken.parent.mkdir()
    broken.write_bytes(b"no video at all")
    with pytest.raises(ClearError, match="OpenCV reads no frame of it"):
        crops(broken, "--boxes", boxes, "--output", tmp_path / "out")
    shutil.copy(video, broken)
    crops(broken, "--boxes", boxes, "--output", tmp_path / "out")
    assert len(files_of(tmp_path / "out")) == 3 * FRAMES


def test_a_video_that_ends_too_early_is_reported(video: Path, boxes: Path, tmp_path: Path) -> None:
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    report = tmp_path / "report.json"
    crops(video, "--boxes", boxes, "--output", tmp_path / "out", "--json", report, code=1)
    written = json.loads(report.read_text())
    assert 0 < written["frames"] < FRAMES and written["crops"] == 3 * written["frames"]
    assert f"walk.avi ends at frame {written['frames']}; its header says {FRAMES} frames" in written["unreadable"][0]


def test_photos_by_number_and_by_name(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, frame in enumerate(frames_and_boxes()[0][:3], start=1):
        cv2.imwrite(str(photos / f"img{number}.png"), frame)
    (photos / "img10.png").write_bytes(b"no picture")
    entries = [{"frame": "img2.png", "xyxy": [10, 20, 60, 140]}, {"frame": 3, "id": 5, "xyxy": [10, 20, 60, 140]}]
    (tmp_path / "boxes.json").write_text(json.dumps(entries))
    report = tmp_path / "report.json"
    crops(photos, "--boxes", tmp_path / "boxes.json", "--output", tmp_path / "out", "--json", report, code=1)
    assert files_of(tmp_path / "out") == ["000002_img2/0.jpg", "5/000003.jpg"]
    (unreadable,) = json.loads(report.read_text())["unreadable"]
    assert "img10.png" in unreadable
    entries[0]["frame"] = "img7.png"
    (tmp_path / "boxes.json").write_text(json.dumps(entries))
    with pytest.raises(ClearError, match="boxes of 'img7.png'"):
        crops(photos, "--boxes", tmp_path / "boxes.json", "--output", tmp_path / "other")


def one_box(frame: Frame) -> list[Box]:
    return [Box(10, 20, 60, 140, 0.9)]


def test_photos_of_the_folder_that_one_stands_in_stay_in_the_output(video: Path, tmp_path: Path, monkeypatch) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    cv2.imwrite(str(inner / "a.png"), frames_and_boxes()[0][0])
    monkeypatch.chdir(inner)
    for source, name in ((".", "inner"), ("..", "outer"), ("*.png", "photos")):
        folder = tmp_path / "crops" / name / "out"
        footage = find_footage([video, source])
        cut_crops([(one, BoxSource(one_box)) for one in footage], folder, tracks_wanted=False)
        assert [path.parent.name for path in folder.rglob("0.jpg")] == ["000001_a"]
        assert (folder / name / "000001_a" / "0.jpg").is_file()
        assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_photos_with_names_that_are_long_or_the_same(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a/1.png", "b/1.png", f"{'x' * 251}.png", f"{'é' * 125}.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "1.png"), frames_and_boxes()[0][0])
        (tmp_path / "1.png").rename(photos / name)
    (footage,) = find_footage([photos])
    assert cut_crops([(footage, BoxSource(one_box))], tmp_path / "out").crops == 4
    folders = {path.parent.name for path in (tmp_path / "out").rglob("0.jpg")}
    assert {"000003_1", "000004_1"} < folders and max(len(name.encode()) for name in folders) <= 255
    (tmp_path / "boxes.json").write_text('[{"frame": "1.png", "xyxy": [10, 20, 60, 140]}]')
    with pytest.raises(ClearError, match="boxes of '1.png', and 2 photos of photos have this name"):
        crops(photos, "--boxes", tmp_path / "boxes.json", "--output", tmp_path / "other")


def test_a_video_that_opencv_cannot_name_is_refused(video: Path, boxes: Path, tmp_path: Path) -> None:
    """OpenCV 5 ends the whole process (segmentation fault)."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.avi")
    shutil.copy(video, name)
    with pytest.raises(ClearError, match=r"caf\\xe9.avi: OpenCV opens no video whose name is not UTF-8. Rename it"):
        find_footage([name])


def test_boxes_of_motchallenges_ground_truth(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_text("1,-1,10.5,20,30,60,-1,-1,-1,-1\n\n2 3 10 20 30 60 0.5\n3,4,1,2,3,4,1,1,0.7\n3,5,1,2,3,4,1,7,0.7\n")
    file = read_boxes(path)
    assert file.boxes == {
        1: [Box(10.5, 20, 40.5, 80, 1.0, "")],
        2: [Box(10, 20, 40, 80, 0.5, "3")],
        3: [Box(1, 2, 4, 6, 1.0, "4")],
    }
    assert file.other_classes == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.txt", "1,2,3,4,5\n", "line 1: '1,2,3,4,5' is not frame,id,x,y,w,h,conf"),
        ("b.txt", "\n1,2,x,4,5,6,1\n", "line 2.*no number"),
        ("b.txt", "0,2,3,4,5,6,1\n", "frames from 1"),
        ("b.txt", "1,2,3,4,0,6,1\n", "no area"),
        ("b.txt", "1,2,nan,4,5,6,1\n", "finite"),
        ("b.txt", "\n", "has no boxes"),
        ("b.csv", "1,2,3,4,5,6,1\n", "read from .txt"),
        ("b.json", "{", "no json"),
        ("b.json", "{}", "must be a list"),
        ("b.json", "[5]", "entry 0 is no object"),
        ("b.json", '[{"frame": 0, "xyxy": [1,2,3,4]}]', "frame is 0"),
        ("b.json", '[{"frame": 1, "xyxy": [1,2,3,4], "xywh": [1,2,3,4]}]', "either xyxy or xywh"),
        ("b.json", '[{"frame": 1, "xyxy": [1,2,3]}]', "four finite numbers"),
        ("b.json", '[{"frame": 1, "xyxy": [1,2,3,NaN]}]', "four finite numbers"),
        ("b.json", f'[{{"frame": 1, "xyxy": [1,2,3,{"9" * 400}]}}]', "four finite numbers"),
        ("b.json", "[" * 100_000, "is no json"),
        ("b.json", '[{"frame": 1, "id": "../up", "xyxy": [1,2,3,4]}]', "folder of a track"),
        ("b.json", '[{"frame": 1, "id": 1.5, "xyxy": [1,2,3,4]}]', "id is 1.5"),
    ],
)
def test_a_wrong_file_of_boxes_is_named_with_its_place(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ClearError, match=message) as error:
        read_boxes(tmp_path / name)
    assert name in str(error.value)


def test_what_cannot_be_done_is_said_before_the_work(video: Path, boxes: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(ClearError, match=r"full has other contents \(note.txt\)"):
        crops(video, "--boxes", boxes, "--output", tmp_path / "full")
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    for words, message in (
        ([tmp_path / "broken.mp4", "--boxes", boxes], "OpenCV reads no frame of it"),
        ([tmp_path / "none.mp4", "--boxes", boxes], "no such file or folder"),
        ([video, "--boxes", boxes, "--weights", "a.pt"], "Give either --boxes or a detector"),
        ([video, video, "--boxes", boxes], "Two sources are called walk"),
        ([video, "--weights", tmp_path / "yolo.pt"], "no such weights file"),
        ([video, "--boxes", boxes, "--margin", "1.5"], "--margin is 1.5"),
    ):
        with pytest.raises(ClearError, match=message):
            crops(*words, "--output", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.jpg"))


# -- detectors -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ssdlite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A file of torchvision's SSDLite, of random weights, and the model itself."""
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    with torch.no_grad():
        for layer in model.head.classification_head.modules():
            if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None:
                layer.bias[1::91] += 4  # people
    path = tmp_path_factory.mktemp("weights") / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    torch.save(model.state_dict(), path)
    return path, model


def test_torchvisions_people_are_the_boxes(ssdlite: tuple[Path, torch.nn.Module]) -> None:
    path, model = ssdlite
    frame = frames_and_boxes()[0][0]
    found = TorchvisionDetector(str(path), "cpu")(frame)
    with torch.no_grad():
        rgb = torch.from_numpy(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).permute(2, 0, 1) / 255
        (expected,) = model([rgb])
    people = (expected["labels"] == 1) & (expected["scores"] >= detectors.LOWEST_SCORE)
    assert len(found) == int(people.sum()) > 0
    assert np.array([box[:5] for box in found]) == pytest.approx(
        torch.cat([expected["boxes"], expected["scores"][:, None]], 1)[people].numpy(), abs=1e-3
    )


def test_torchvisions_weights_are_found_in_torchs_cache(
    ssdlite: tuple[Path, torch.nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(ClearError, match="download torchvision's .the smallest: https://.*ssdlite320.*--boxes"):
        build_detector("", "", tracked=False, device="cpu")
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / ssdlite[0].name).symlink_to(ssdlite[0])
    assert isinstance(build_detector("", "", tracked=False, device="cpu"), TorchvisionDetector)
    torch.save({"layer.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ClearError, match="fits none of torchvision's detectors"):
        build_detector("", str(tmp_path / "other.pth"), tracked=False)
    (tmp_path / "broken.pth").write_bytes(b"broken")
    with pytest.raises(ClearError, match="cannot be read as weights"):
        build_detector("torchvision", str(tmp_path / "broken.pth"), tracked=False)
    torch.save({"a": print}, tmp_path / "code.pth")
    with pytest.raises(ClearError, match="holds Python objects other than tensors") as refused:
        build_detector("torchvision", str(tmp_path / "code.pth"), tracked=False)
    assert "\n" not in str(refused.value) and "weights_only" not in str(refused.value)  # torch advises to allow code


def test_several_videos_share_one_network_and_have_their_own_trackers(ssdlite: tuple[Path, torch.nn.Module]) -> None:
    first, second, photos = detectors.build_detectors("", str(ssdlite[0]), [True, True, False], "cpu")
    assert isinstance(first, ByteTracked) and isinstance(second, ByteTracked)
    assert first.detector is second.detector is photos and first.tracker is not second.tracker


def test_bytetrack_joins_a_detectors_boxes(video: Path, tmp_path: Path) -> None:
    """The real ByteTrack: three people who walk steadily are three tracks, also after a kill in the middle."""
    truth = frames_and_boxes()[1]

    class Detecting:
        def __init__(self, first: int, dies_at: int = 0) -> None:
            self.frame, self.dies_at = first - 1, dies_at

        def __call__(self, frame: np.ndarray) -> list[Box]:
            self.frame += 1
            if self.frame == self.dies_at:
                raise KeyboardInterrupt
            return [Box(x, y, x + w, y + h, 0.9) for n, _, x, y, w, h in truth if n == self.frame]

    def cut(detecting: Detecting, folder: str) -> CropReport:
        return cut_crops(
            [(find_footage([video])[0], boxes_of_detector(ByteTracked(detecting)))], tmp_path / folder, CropSettings()
        )

    report = cut(Detecting(1), "out")
    assert len(report.tracks) == 3 and min(report.tracks.values()) >= FRAMES - 2
    for track in report.tracks:
        kept = [cv2.imread(str(path)) for path in sorted((tmp_path / "out" / track).glob("*.jpg"))]
        assert mean_difference(kept[0], kept[-1][: kept[0].shape[0], : kept[0].shape[1]]) < 15
    with pytest.raises(KeyboardInterrupt):
        cut(Detecting(1, dies_at=7), "killed")
    cut(Detecting(7), "killed")
    assert all_files(tmp_path / "killed") == all_files(tmp_path / "out")


def test_ultralytics_is_called_as_it_publishes(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ultralytics (AGPL) is not installed for the tests; a stand-in has the calls of version 8.4."""
    calls: list[dict] = []

    class Boxes:
        xyxy, conf = torch.tensor([[10.0, 20, 60, 140], [80, 20, 130, 140]]), torch.tensor([0.9, 0.8])
        id: torch.Tensor | None = None

    class YOLO:
        def __init__(self, weights: str) -> None:
            self.weights = weights

        def predict(self, source: np.ndarray, **options: object) -> list:
            calls.append({"call": "predict", **options})
            return [types.SimpleNamespace(boxes=Boxes())]

        def track(self, source: np.ndarray, persist: bool, **options: object) -> list:
            calls.append({"call": "track", "persist": persist, **options})
            found = Boxes()
            found.id = None if len(calls) == 1 else torch.tensor([3.0, 5.0])  # no track is confirmed at first
            return [types.SimpleNamespace(boxes=found)]

    weights = tmp_path / "yolo11n.pt"
    with pytest.raises(ClearError, match="Name the weights"):
        build_detector("ultralytics", "", tracked=True)
    weights.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(ClearError, match="needs ultralytics, which is not installed: pip install ultralytics"):
        build_detector("", str(weights), tracked=True)
    module = types.ModuleType("ultralytics")
    module.YOLO = YOLO  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace(name="ultralytics")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "ultralytics", module)
    crops(video, "--weights", weights, "--output", tmp_path / "out", "--device", "cpu")
    assert files_of(tmp_path / "out") == [f"{track}/{number:06}.jpg" for track in (3, 5) for number in range(2, 13)]
    assert calls[0] == {
        "call": "track",
        "persist": True,
        "classes": [0],
        "conf": 0.05,
        "verbose": False,
        "device": "cpu",
    }
    calls.clear()
    crops(video, "--weights", weights, "--output", tmp_path / "out", "--device", "cpu")
    assert len(calls) == FRAMES  # its tracker needs every frame again
    with pytest.raises(ClearError, match="boxes.tracked was True, now False"):
        crops(video, "--weights", weights, "--output", tmp_path / "out", "--device", "cpu", "--no-tracks")
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), frames_and_boxes()[0][0])
    crops(photo, "--weights", weights, "--output", tmp_path / "photos", "--device", "cpu")
    assert files_of(tmp_path / "photos") == ["000001_photo/0.jpg", "000001_photo/1.jpg"]
    assert calls[-1]["call"] == "predict"
